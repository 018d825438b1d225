"""The nginx role without a host: what its templates and checks come to."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible_collections.tradingbot.stack.plugins.module_utils import stack_health
from ansible_collections.tradingbot.stack.plugins.module_utils.host_command import containers
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from rendering import ROOT, evaluate, render, role_variables
from test_postgres_role import FILE_LOOKS

from tests.leaky_bucket import LeakyBucket, Volley, admitted_in_each

FACTS = {"ansible_facts": {"processor_vcpus": 2}}
DEVELOPMENT = {"nginx_environment": "development", "__nginx_live": {}, **FACTS}


def configuration(**variables: Any) -> str:
    """Return nginx.conf."""
    return render("nginx", "conf/nginx.conf.j2", **({**DEVELOPMENT, **variables}))


def compose(**variables: Any) -> dict[str, Any]:
    """Return the nginx service of the Compose fragment."""
    service: dict[str, Any] = yaml.safe_load(render("nginx", "compose.yaml.j2", **variables))["services"]["nginx"]
    return service


def problems(**variables: Any) -> list[str]:
    """Return what preflight objects to."""
    tls = "(__nginx_tls_checks if __nginx_provided else [])"
    found = evaluate(
        "nginx", f"(__nginx_checks + {tls}) | selectattr('wrong') | map(attribute='why')", **(FACTS | variables)
    )
    return list(found)


def pair(names: list[str], days: int = 90, key: ec.EllipticCurvePrivateKey | None = None) -> tuple[str, str]:
    """Return a self-signed certificate for *names* that ends in *days*, and a key, as PEM texts."""
    own = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=365)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 + days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(own, hashes.SHA256())
    )
    pem = (key or own).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode()


def given(names: list[str], **variables: Any) -> dict[str, Any]:
    """Return variables of a production edge with a given certificate for *names*."""
    certificate, key = pair(names, variables.pop("days", 90), variables.pop("key", None))
    return {
        "nginx_tls_mode": "provided",
        "nginx_tls_certificate": certificate,
        "nginx_tls_private_key": key,
        "nginx_server_names": ["bot.example.com"],
    } | variables


def location(text: str, path: str) -> str:
    """Return the body of the location *path*."""
    found = re.search(rf"\n( *)location {re.escape(path)} \{{\n(.*?)\n\1\}}", text, re.DOTALL)
    assert found, path
    return found.group(2)


def test_every_variable_is_specified_with_its_default() -> None:
    defaults = yaml.safe_load((ROOT / "roles/nginx/defaults/main.yml").read_text())
    specified = yaml.safe_load((ROOT / "roles/nginx/meta/argument_specs.yml").read_text())
    options = specified["argument_specs"]["main"]["options"]
    assert {name: option["default"] for name, option in options.items()} == defaults


def test_limits_are_those_asked_for() -> None:
    text = configuration()
    assert "limit_req_zone $client zone=api:2m rate=60r/m;" in text
    assert "limit_req_zone $webhook_token zone=webhook:2m rate=300r/m;" in text
    assert "limit_req_zone $client zone=webhook_client:1m rate=6000r/m;" in text
    webhooks = location(text, "/api/v1/webhooks/")
    assert directives(webhooks, "limit_req") == [
        "zone=webhook burst=30 nodelay",
        "zone=webhook_client burst=600 nodelay",
    ]
    assert directives(webhooks, "limit_req_status") == directives(webhooks, "limit_conn_status") == ["503"]
    for path in ("= /api/v1/health", r"~ ^/(metrics|api/v1/health/ready)$", "/static/"):
        assert "limit_req" not in location(text, path)


def test_tls_is_mozillas_intermediate_6_0() -> None:
    text = configuration()
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in text
    assert "ssl_ecdh_curve X25519MLKEM768:X25519:prime256v1:secp384r1;" in text
    assert "ssl_prefer_server_ciphers off;" in text
    ciphers = re.search(r"ssl_ciphers (\S+);", text)
    assert ciphers
    assert set(ciphers.group(1).split(":")) == {
        f"ECDHE-{key}-{cipher}"
        for key in ("ECDSA", "RSA")
        for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    }


JOURNAL = f"syslog:server=unix:{stack_health.NGINX_LOG},nohostname,tag=tradingbot_nginx"


def test_no_request_waits_for_who_reads_the_container_s_log() -> None:
    """What nginx prints goes through a pipe, which is full when the engine is away for long."""
    text = configuration()
    assert f"access_log {JOURNAL} tradingbot;" in text
    assert set(re.findall(r"error_log stderr (\w+);", text)) == {"emerg"}, "which is said at a start or reload alone"
    assert JOURNAL.endswith(f"tag={containers.NGINX}")
    (journal,) = [volume for volume in compose()["volumes"] if isinstance(volume, dict)]
    assert journal["source"] == f"/run/systemd/journal.{containers.NAMESPACE}"
    # The folder, for a socket that is made again is another file.
    assert journal["target"] == str(Path(stack_health.NGINX_LOG).parent)
    assert f"systemd-journald@{containers.NAMESPACE}.socket" == stack_health.NGINX_JOURNAL
    assert journal["bind"] == {"create_host_path": False}


def test_the_log_is_bounded_apart_from_the_host_s_journal() -> None:
    (conf, _, restart) = yaml.safe_load((ROOT / "roles/nginx/tasks/journal.yml").read_text())
    assert list(conf["tradingbot.stack.files"]["files"]) == [f"journald@{containers.NAMESPACE}.conf"]
    assert restart["when"].startswith(f"{conf['register']}.paths")
    text = render("nginx", "journald.conf.j2", nginx_log_max_size="7m", nginx_log_max_files=5)
    assert f"SystemMaxUse={5 * (7 << 20)}\n" in text
    assert {"Storage=persistent", "ForwardToSyslog=no"} < set(text.splitlines())


def test_the_container_neither_swaps_nor_leaves_cores_nor_asks_for_names() -> None:
    service = compose(nginx_memory="77m")
    assert service["memswap_limit"] == service["mem_limit"] == "77m"
    assert service["ulimits"] == {"core": 0}
    assert service["dns_search"] == ["."]


def test_no_error_log_shows_request_lines() -> None:
    """They hold tokens. Of what is left, `worker_connections are not enough` is the one that people need."""
    text = configuration(nginx_server_names=["bot.example.com"])
    assert text.index(f"error_log {JOURNAL} warn;") < text.index("http {") < text.index(f"error_log {JOURNAL} alert;")
    requests = text[text.index("http {") :]
    assert requests.count("proxy_pass http://$active_backend;") == requests.count("error_log stderr emerg;") == 7
    for path in ("= /api/v1/health", "/api/", "= /api/v1/ws", "/api/v1/webhooks/"):
        assert "error_log stderr emerg;" in location(text, path)
    log = re.search(r"log_format tradingbot (.*?);\n", text, re.DOTALL)
    assert log
    assert not set(re.findall(r"\$(\w+)", log.group(1))) & {
        "request",
        "request_uri",
        "uri",
        "args",
        "http_referer",
        "http_user_agent",
    }


def test_bodies_are_as_large_as_the_backend_takes() -> None:
    backend = ROOT / "backend/src/tradingbot/core"
    body = re.search(r"^LARGEST = (\d+) \* 1024$", (backend / "body.py").read_text(), re.MULTILINE)
    settings = (backend / "settings.py").read_text()
    webhook = re.search(r"^    webhook_max_bytes: PositiveInt = (\d+) \* 1024$", settings, re.MULTILINE)
    assert body
    assert webhook
    given = role_variables("nginx")
    assert given["nginx_body_limit"] == f"{body.group(1)}k"
    assert given["nginx_webhook_body_limit"] == f"{webhook.group(1)}k"


def test_the_mark_of_the_configuration_changes_with_what_it_depends_on() -> None:
    def mark(**variables: Any) -> str:
        text = configuration(**variables)
        marks = re.findall(r"[0-9a-f]{64}", text.replace(str(re.search("Certificate sha256 (.*);", text)), ""))
        line = re.search(r"^# configuration ([0-9a-f]{64})$", text, re.MULTILINE)
        assert line
        assert marks.count(line.group(1)) == 2, "in the comment for apply.sh and in what nginx answers"
        return line.group(1)

    other = base64.b64encode(b"another certificate").decode()
    marks = [
        mark(),
        mark(nginx_api_burst=21),
        mark(nginx_image="nginx:1.30.1-alpine"),
        mark(__nginx_live={"content": other}),
    ]
    assert len(set(marks)) == len(marks)
    assert mark() == marks[0]


def directives(text: str, name: str) -> list[str]:
    """Return what follows the directive *name*, wherever it stands."""
    return re.findall(rf"^ *{name} (.*);$", text, re.MULTILINE)


def mapped(text: str, variable: str, source: str) -> str:
    """Return what the map of *variable* makes of *source*, as nginx does: the first pattern, else the default."""
    found = re.search(rf"\n    map \S+ \${variable} \{{\n(.*?)\n    \}}", text, re.DOTALL)
    assert found, variable
    entries = [line.strip(" ;").split(None, 1) for line in found.group(1).splitlines() if "volatile" not in line]
    for pattern, value in entries:
        flags = re.IGNORECASE if pattern.startswith('"~*') else 0
        if pattern.startswith('"~') and re.search(pattern.strip('"').lstrip("~*"), source, flags):
            return value.strip('"')
    return dict(entries)["default"].strip('"')


def test_every_slot_is_an_upstream_and_a_deploy_decides_which_gets_requests() -> None:
    text = configuration(nginx_upstreams={"backend-blue": "10.9.8.1:8001", "backend-green": "10.9.8.2:8001"})
    for name, server in (("backend-blue", "10.9.8.1:8001"), ("backend-green", "10.9.8.2:8001")):
        assert f"    upstream {name} {{\n        zone {name} 128k;\n        server {server} max_fails=0;\n" in text
    assert set(directives(text, "proxy_pass")) == {
        "http://$active_backend",
        "http://$active_backend/api/v1/health",
    }
    assert not directives(text, "resolver")
    assert directives(text, "include") == [
        "/etc/nginx/mime.types",
        "/etc/tradingbot/live/upstream.conf",
        "/etc/tradingbot/live/maintenance.conf",
    ]
    assert '"backend":"$active_backend"' in text


def test_the_inventory_wires_what_the_role_has_as_its_defaults() -> None:
    wiring = DataLoader().load_from_file(
        str(ROOT / "inventories/prod/group_vars/all/00-wiring.yml"), trusted_as_template=True
    )
    defaults = role_variables("nginx")["nginx_upstreams"]
    assert evaluate("nginx", "nginx_upstreams", **wiring) == defaults
    slots = {f"backend-{slot}": f"{address}:8001" for slot, address in two_slots(wiring, ["nginx"]).items()}
    assert slots == defaults
    assert list(two_slots(wiring, ["backend"])) == ["blue"], "without nginx nobody tells two apart"


def two_slots(wiring: dict[str, Any], groups: list[str]) -> dict[str, str]:
    """Return the backend's slots on a host that is in *groups*."""
    return dict(evaluate("backend", "backend_slots", **wiring, group_names=groups))


def test_what_is_switched_while_nginx_runs_is_written_once() -> None:
    tasks = yaml.safe_load((ROOT / "roles/nginx/tasks/main.yml").read_text())
    calls = [task["tradingbot.stack.files"] for task in tasks if "tradingbot.stack.files" in task]
    (once,) = [call for call in calls if call.get("force") is False]
    contents = once["files"]
    assert contents["live/maintenance.conf"] == 'map "" $maintenance { default 0; }\n'
    first = contents["live/upstream.conf"].replace("{{ nginx_upstreams | first }}", "backend-blue")
    assert first == 'map "" $active_backend { default backend-blue; }\n'
    (configured,) = yaml.safe_load((ROOT / "roles/nginx/tasks/configure.yml").read_text())
    validate = configured["tradingbot.stack.files"]["validate"]["conf/nginx.conf"]
    assert "/live:/etc/tradingbot/live:ro" in validate, "nginx -t reads them, too"
    assert any(volume.endswith("/nginx/live:/etc/tradingbot/live:ro") for volume in compose()["volumes"])


@pytest.mark.parametrize(
    ("path", "closed"),
    [
        ("/", "1"),
        ("/docs", "1"),
        ("/api/v1/signals", "1"),
        ("/api/v1/ws", "1"),
        ("/api/v1/health/more", "1"),
        ("/api/v1/webhooks", "1"),
        ("/api/v1/webhooks/tradingview/tbw_token", "0"),
        ("/api/v1/health", "0"),
        ("/api/v1/health/ready", "0"),
        ("/metrics", "0"),
        ("/static/index.html", "0"),
    ],
)
def test_maintenance_closes_all_but_webhooks_health_and_static_files(path: str, closed: str) -> None:
    text = configuration()
    assert mapped(text, "closed", f"1:{path}") == closed
    assert mapped(text, "closed", f"0:{path}") == "0"


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("1:GET:text/html,application/xhtml+xml", "@maintenance"),
        ("1:HEAD:Text/HTML", "@maintenance"),
        ("1:GET:*/*", "@problem"),
        ("1:GET:", "@problem"),
        ("1:POST:text/html", "@problem"),
        ("0:GET:text/html", "@problem"),
    ],
)
def test_people_get_a_page_and_programs_a_problem(asked: str, shown: str) -> None:
    assert mapped(configuration(), "unavailable", asked) == shown


def test_only_maintenance_names_its_own_time_to_come_back() -> None:
    text = configuration(nginx_maintenance_retry_after=77)
    assert mapped(text, "retry_after", "1:503:") == "77"
    for other in ("0:503:", "1:400:", "0:503:REJECTED", "1:429:REJECTED"):
        assert mapped(text, "retry_after", other) != "77"


def test_the_page_carries_all_that_it_needs() -> None:
    page = (ROOT / "roles/nginx/files/static/maintenance.html").read_text()
    assert '<html lang="en">' in page
    assert not re.findall(r"<script|<link|<img|src=|url\(|@import|\son\w+=|style=", page)
    assert "style-src 'unsafe-inline'" in configuration()


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/", "static"),
        ("/static/some.css", "static"),
        ("/docs", "docs"),
        ("/docs/start.js", "docs"),
        ("/docsome", "api"),
        ("/redoc", "api"),
        ("/openapi.json", "api"),
        ("/api/v1/signals", "api"),
    ],
)
def test_nothing_is_loaded_from_another_host_and_no_script_is_inline(path: str, policy: str) -> None:
    sent = mapped(configuration(), "content_security_policy", f"0:{path}")
    assert sent == role_variables("nginx")[f"nginx_csp_{policy}"]
    assert not re.search(r"unsafe|//|https?:|\*", sent)


def test_what_the_page_of_the_api_loads_is_cached_and_holds_no_memory() -> None:
    files = location(configuration(nginx_static_max_age=77), "~ ^/docs/")
    assert directives(files, "expires") == ["77s"]
    assert directives(files, "gzip") == ["off"]
    assert directives(files, "limit_req") == ["zone=api burst=20 nodelay"]


def seconds(value: str | int) -> int:
    """Return a time of nginx in seconds."""
    found = re.fullmatch(r"(\d+)s?", str(value))
    assert found, value
    return int(found.group(1))


def test_nginx_lets_go_of_an_idle_connection_before_the_backend_does() -> None:
    """Else a request may go out on a connection that the backend is just closing, and comes back as 502."""
    defaults = yaml.safe_load((ROOT / "roles/nginx/defaults/main.yml").read_text())
    settings = (ROOT / "backend/src/tradingbot/core/settings.py").read_text()
    kept = re.search(r"^    keep_alive_timeout: PositiveInt = (\d+)$", settings, re.MULTILINE)
    assert kept
    assert seconds(defaults["nginx_upstream_keepalive_timeout"]) + 10 <= int(kept.group(1))


def test_nginx_keeps_websockets_open_until_a_killed_deploy_is_repaired() -> None:
    """Else they end as broken off (1006), before the backend can say that it restarts (1012)."""
    timeout = role_variables("nginx")["nginx_shutdown_timeout"]
    until_the_next_run_is_at_the_slots = 60
    assert timeout >= until_the_next_run_is_at_the_slots + role_variables("backend")["backend_drain_timeout"] + 5


@pytest.mark.parametrize("there", [True, False])
def test_a_host_without_namespaces_of_the_journal_is_refused(there: bool) -> None:
    tasks = yaml.safe_load((ROOT / "roles/nginx/tasks/preflight.yml").read_text())
    (task,) = [one for one in tasks if "__nginx_no_journal" in str(one)]
    found = {"stat": {"exists": there}}
    assert evaluate("nginx", task["when"], __nginx_journal_unit=found) is not there
    added = task["ansible.builtin.set_fact"]["__nginx_problems"].strip("{} ")
    (problem,) = evaluate("nginx", added, __nginx_problems=[])
    assert set(problem) == {"what", "why", "fix"}


@pytest.mark.parametrize(("timeout", "waits"), [(120, 120), (4127, 300)])
def test_other_changes_of_the_host_do_not_wait_for_a_second_nginx_for_longer_than_they_do(
    timeout: int, waits: int
) -> None:
    (task, _) = yaml.safe_load((ROOT / "roles/nginx/tasks/run.yml").read_text())
    asked = task["tradingbot.stack.nginx_container"]["stop_timeout"].strip("{} ")
    assert evaluate("nginx", asked, nginx_shutdown_timeout=timeout) == waits


@pytest.mark.parametrize(("said", "failed"), FILE_LOOKS)
def test_a_certificate_is_missing_only_where_a_file_is_not_there(said: str, failed: bool) -> None:
    look = yaml.safe_load((ROOT / "roles/nginx/tasks/tls_selfsigned.yml").read_text())[0]
    assert evaluate("nginx", look["failed_when"], __nginx_live={"failed": True, "msg": said}) == failed


@pytest.mark.parametrize(
    ("processors", "share", "workers"),
    [
        (1, "1.0", 1),
        (2, "1.0", 1),
        (4, "0.5", 1),
        (4, "1.5", 2),
        (4, "4.0", 4),
        (2, "4.0", 2),
        (40, "8", 4),
        (96, "0", 4),
    ],
)
def test_workers_fit_the_machine_and_the_container(processors: int, share: str, workers: int) -> None:
    facts = {"ansible_facts": {"processor_vcpus": processors}, "nginx_cpus": share}
    assert f"worker_processes {workers};" in configuration(**facts)
    assert not [why for why in problems(**facts) if "workers" in why]


@pytest.mark.parametrize(
    ("workers", "pids", "said"),
    [(40, 64, "40 workers"), (18, 61, "18 workers"), ("many", 64, "neither"), (0, 64, "neither")],
)
def test_more_workers_than_the_container_can_hold_are_refused(workers: int | str, pids: int, said: str) -> None:
    found = problems(nginx_worker_processes=workers, nginx_pids=pids)
    assert any(said in why for why in found), found


def test_many_workers_with_room_are_taken() -> None:
    given = {"nginx_worker_processes": 40, "nginx_pids": 128, "nginx_memory": "1g"}
    assert not [why for why in problems(**given) if "worker" in why]
    assert "worker_processes 40;" in configuration(**given)


def kib(size: str) -> int:
    """Return a size of nginx in KiB."""
    return int(size[:-1]) * {"k": 1, "m": 1024, "g": 1024 * 1024}[size[-1]]


def test_a_connection_holds_what_the_memory_is_counted_with() -> None:
    """As measured: 48 KiB for TLS and HTTP/2, 13 for a request, to which its header fields and its body come."""
    text = configuration()
    (streams,) = directives(text, "http2_max_concurrent_streams")
    (headers,) = directives(text, "large_client_header_buffers")
    (body,) = directives(text, "client_body_buffer_size")
    number, size = headers.split()
    held = 48 + int(streams) * (13 + int(number) * kib(size) + kib(body))
    assert held <= role_variables("nginx")["__nginx_connection_kib"]
    assert not directives(text, "proxy_request_buffering"), "a body on its way would be lost with its slot"


def test_the_zones_are_what_the_memory_is_counted_with() -> None:
    text = configuration()
    sizes = re.findall(r"(?:zone=\w+:|shared:tls:|zone backend-\w+ )(\d+[km])", text)
    assert len(sizes) == 9
    # Beside them 3 MiB of the master, and 7 of another nginx and of curl.
    assert sum(map(kib, sizes)) + 10 * 1024 <= role_variables("nginx")["__nginx_base_kib"]


@pytest.mark.parametrize("memory", ["64m", "128m", "131072k", "134217728", "256m", "1g"])
@pytest.mark.parametrize(("processors", "share"), [(1, "1.0"), (2, "2.0"), (4, "4.0")])
@pytest.mark.parametrize("body", ["0", "256k", "10m"])
def test_all_that_nginx_may_hold_fits_its_memory(memory: str, processors: int, share: str, body: str) -> None:
    given = {"ansible_facts": {"processor_vcpus": processors}, "nginx_cpus": share, "nginx_body_limit": body}
    if any("room" in why for why in problems(nginx_memory=memory, **given)):
        assert (memory, processors) not in {("128m", 1), ("128m", 2), ("1g", 4)}
        return
    text = configuration(nginx_memory=memory, **given)
    (workers,) = directives(text, "worker_processes")
    (connections,) = directives(text, "worker_connections")
    (bodies,) = set(re.findall(r"limit_conn large_bodies (\d+);", text))
    known = role_variables("nginx")
    tmp = min(int(bodies) * (kib(body) if body != "0" else 65536), 65536)
    held = known["__nginx_base_kib"] + int(workers) * known["__nginx_worker_kib"] + tmp
    held += int(workers) * int(connections) * known["__nginx_connection_kib"]
    assert int(connections) >= 64
    assert held <= (kib(memory) if memory[-1] in "kmg" else int(memory) // 1024)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"nginx_worker_connections": 4096}, "128m has room for 462 connections .* 4096 are wanted"),
        ({"nginx_worker_connections": 463}, "463 are wanted"),
        ({"nginx_worker_connections": 300, "nginx_worker_processes": 2}, "worker .there are 2., and 300 are wanted"),
        ({"nginx_memory": "40m"}, "40m has room for 29 connections"),
        ({"nginx_worker_processes": 8}, "worker .there are 8."),
        ({"nginx_worker_connections": "many"}, "`many` is neither"),
        ({"nginx_worker_connections": 0}, "`0` is neither"),
        ({"nginx_memory": "lots"}, "no size: lots"),
        ({"nginx_body_limit": "1.5m"}, "no size: 1.5m"),
    ],
)
def test_more_connections_than_the_memory_holds_are_refused(variables: dict[str, Any], reason: str) -> None:
    found = problems(**variables)
    assert any(re.search(reason, why) for why in found), found


def test_connections_that_the_memory_holds_are_taken() -> None:
    given = {"nginx_worker_connections": 1024, "nginx_memory": "256m"}
    assert not [why for why in problems(**given) if "room" in why]
    assert "worker_connections 1024;" in configuration(**given)


@pytest.mark.parametrize(
    ("request_line", "large"),
    [
        ("9999::HTTP/1.1", ""),
        ("0::HTTP/2.0", ""),
        ("::HTTP/1.0", ""),
        ("10000::HTTP/1.1", "large"),
        (":chunked:HTTP/1.1", "large"),
        ("::HTTP/2.0", "large"),
    ],
)
def test_a_body_that_may_not_fit_its_buffer_is_counted(request_line: str, large: str) -> None:
    text = configuration()
    assert mapped(text, "large_body", request_line) == large
    assert kib(directives(text, "client_body_buffer_size")[0]) * 1024 > 9999
    for path in ("/api/", "/api/v1/webhooks/"):
        assert directives(location(text, path), "limit_conn") == [
            "client 100",
            "large_bodies 32",
            "client_large_bodies 8",
        ]
    others = text.replace(location(text, "/api/"), "").replace(location(text, "/api/v1/webhooks/"), "")
    assert directives(others, "limit_conn") == ["client 100"], "for all other locations"
    assert directives(others, "client_max_body_size") == [directives(text, "client_body_buffer_size")[0], "0"]


def test_a_client_is_an_address_and_in_ipv6_a_64() -> None:
    pattern = re.search(r'map \$binary_remote_addr \$client \{\n +"~(.*)" \$client_network;', configuration())
    assert pattern
    network = re.compile(pattern.group(1).replace("(?<", "(?P<").encode())
    found = network.search(ipaddress.ip_address("2001:db8:0:a::7").packed)
    assert found
    assert found["client_network"] == ipaddress.ip_address("2001:db8:0:a::").packed[:8]
    assert not network.search(ipaddress.ip_address("192.0.2.1").packed)


def test_unknown_host_names_are_refused_only_when_names_are_given() -> None:
    assert "return 421;" not in configuration()
    assert configuration().count("default_server") == 2
    named = configuration(nginx_server_names=["bot.example.com", "192.0.2.1"])
    assert "return 421;" in named
    assert "server_name bot.example.com 192.0.2.1;" in named


def test_without_tls_there_is_one_plain_server() -> None:
    text = configuration(nginx_tls_mode="off")
    assert "ssl" not in text.replace("$ssl_protocol", "")
    assert "Strict-Transport-Security $hsts" not in text
    assert compose(nginx_tls_mode="off")["ports"] == ["80:8080"]


def test_clients_are_believed_only_behind_trusted_proxies() -> None:
    assert "real_ip" not in configuration()
    text = configuration(nginx_trusted_proxies=["192.0.2.0/24"])
    assert "set_real_ip_from 192.0.2.0/24;" in text
    assert "real_ip_header X-Forwarded-For;" in text
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in text


def test_a_redirect_names_the_port_unless_it_is_443() -> None:
    assert "return 308 https://$host$request_uri;" in configuration()
    assert "return 308 https://$host:8443$request_uri;" in configuration(nginx_redirect_port=8443)


def test_the_container_has_no_more_rights_than_it_needs() -> None:
    service = compose()
    assert service["user"] == "101:101"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(str(volume).endswith(":ro") or volume["read_only"] for volume in service["volumes"])
    assert "docker.sock" not in str(service["volumes"])
    assert service["restart"] == "unless-stopped"
    assert {"cpus", "mem_limit", "pids_limit", "logging", "healthcheck", "stop_grace_period"} <= set(service)


def test_names_of_a_self_signed_certificate() -> None:
    names = evaluate("nginx", "__nginx_selfsigned_san", nginx_server_names=["a.example", "192.0.2.1", "2001:db8::1"])
    given_names = ["DNS:a.example", "IP:192.0.2.1", "IP:2001:db8::1"]
    assert list(names) == [*given_names, "DNS:localhost", "IP:127.0.0.1", "IP:::1"]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"nginx_tls_mode": "off", "nginx_server_names": ["a.example"]}, "clear text in production"),
        ({"nginx_tls_mode": "off", "nginx_environment": "development"}, "in clear text"),
        ({"nginx_tls_mode": "selfsigned", "nginx_server_names": ["a.example"]}, "self-signed"),
        (given(["bot.example.com"], nginx_server_names=[]), "host names of other people"),
        (given(["CHANGE_ME"], nginx_server_names=["CHANGE_ME"]), "not a host name"),
        (given(["bot.example.com"], days=13), "nginx_tls_min_days"),
        (given(["bot.example.com"], days=-1), "it ended at"),
        (given(["bot.example.com"], key=ec.generate_private_key(ec.SECP256R1())), "does not belong"),
        (given(["other.example.com"]), "not all of nginx_server_names"),
        (given(["*.bot.example.com"]), "not all of nginx_server_names"),
        ({"nginx_environment": "development", "nginx_upstream": "backend:8001"}, "two slots"),
        ({"nginx_environment": "development", "nginx_upstreams": {}}, "names no backend"),
        ({"nginx_environment": "development", "nginx_upstreams": {"back end": "10.9.8.1:80"}}, "back end"),
    ],
)
def test_preflight_refuses(variables: dict[str, Any], reason: str) -> None:
    found = problems(**variables)
    assert len(found) == 1, found
    assert reason in found[0]


@pytest.mark.parametrize(
    "variables",
    [
        {"nginx_environment": "development"},
        {"nginx_environment": "development", "nginx_tls_mode": "off", "nginx_allow_plain_http": True},
        {"nginx_server_names": ["bot.example.com"], "nginx_allow_self_signed": True},
        given(["bot.example.com"]),
        given(["*.example.com"]),
    ],
)
def test_preflight_accepts(variables: dict[str, Any]) -> None:
    assert problems(**variables) == []


@pytest.mark.parametrize("name", ["nginx_tls_certificate", "nginx_tls_private_key"])
@pytest.mark.parametrize("value", ["", "not a PEM text"])
def test_what_cannot_be_read_is_an_error_that_preflight_rescues(name: str, value: str) -> None:
    with pytest.raises(AnsibleError):
        problems(**given(["bot.example.com"], **{name: value}))
    assert evaluate("nginx", "__nginx_tls_unreadable.fix").startswith('nginx_tls_certificate: "{{ lookup(')


class TestLeakyBucket:
    """The model against what the source of nginx says, computed by hand."""

    def test_a_burst_at_once(self) -> None:
        assert LeakyBucket(60, 20).admitted([0] * 100) == 21
        assert LeakyBucket(300, 0).admitted([0] * 100) == 1

    def test_one_request_drains_in_the_time_of_one(self) -> None:
        bucket = LeakyBucket(300, 1)
        assert bucket.token_seconds == 0.2
        assert [bucket.admit(ms) for ms in (0, 0, 0, 199, 200, 200, 399, 400)] == [
            *[True, True, False, False],
            *[True, False, False, True],
        ]

    def test_a_rejected_request_costs_nothing(self) -> None:
        bucket = LeakyBucket(60, 0)
        assert bucket.admit(0)
        assert not any(bucket.admit(ms) for ms in range(1, 1000))
        assert bucket.admit(1000)

    def test_a_full_bucket_drains_in_drain_seconds(self) -> None:
        bucket = LeakyBucket(60, 20)
        assert bucket.admitted([0] * 21) == 21
        assert bucket.admitted([round(bucket.drain_seconds * 1000)] * 30) == 21

    def test_time_does_not_go_back(self) -> None:
        bucket = LeakyBucket(60, 1)
        assert [bucket.admit(ms) for ms in (500, 0, 0)] == [True, True, False]

    def test_the_long_run_keeps_to_the_rate(self) -> None:
        assert LeakyBucket(300, 30).admitted(range(0, 60_000, 10)) == 300 + 30

    def test_volleys_that_can_be_told(self) -> None:
        first = Volley(30, 0, 300)
        assert admitted_in_each(60, 20, [first]) == [21]
        assert admitted_in_each(60, 20, [first, Volley(5, 2400, 2700)]) == [21, 2]
        with pytest.raises(ValueError, match="may pass"):
            admitted_in_each(60, 20, [Volley(30, 0, 1000)])
        with pytest.raises(ValueError, match="may pass"):
            admitted_in_each(60, 20, [first, Volley(5, 2900, 3100)])
