"""Every variable of a role arrives where it is to be used, and what it was by default is nowhere left there."""

from __future__ import annotations

import ast
import hashlib
import re
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ansible_collections.tradingbot.stack.plugins.filter.scram_verifier import scram_verifier
from places import PREFLIGHT, ROLES, text
from rendering import ROOT

PG_COMPOSE, PG_CONF = "postgres postgres/compose.yaml.j2", "postgres postgres/conf/postgresql.conf.j2"
PG_HBA, PG_SQL = "postgres postgres/conf/pg_hba.conf.j2", "postgres sql/apply.sql.j2"
PG_RUN = "postgres up.yml: Ensure PostgreSQL is up and healthy"
PG_DATA = "postgres preflight.yml: Read the version of existing data"
PG_CHECKS = "postgres preflight.yml: Note the problems found"
REDIS_COMPOSE, REDIS_CONF = "redis redis/compose.yaml.j2", "redis redis/conf/redis.conf.j2"
REDIS_ACL, REDIS_RUN = "redis secrets/redis_acl.j2", "redis run.yml: Ensure Redis is up and healthy"
LOOK = "docker_host preflight.yml: Look at what the host has and lacks"
FIREWALL = "docker_host etc/tradingbot/firewall.nft.j2"
COMMAND = "docker_host etc/tradingbot/command.json.j2"
PROJECT = "docker_host opt/tradingbot/compose.yaml.j2"
NETWORK = "docker_host project.yml: Ensure the stack's network is there"
HEALTH = "playbooks playbooks/tasks/health.yml: Look at services, host, certificate, schema, queue and backup"
RELEASE = "backend backend/release.yaml.j2"
SECRETS = "backend configure.yml: Ensure the service has its folders and secrets"
RUNS = "backend release.yml: Ensure the release runs (some 15 seconds for another one)"
RESTARTS, ROLLS_BACK = (
    "backend restart.yml: Start the release that runs anew",
    "backend rollback.yml: Ensure the earlier release runs",
)
CHANGES = (RUNS, RESTARTS, ROLLS_BACK)
BUILD = "backend build.yml: Build the image (takes a minute or two)"
PULL = "backend pull_image.yml: Pull the image"
LOGIN = "backend registry_login.yml: Ensure there is a login"
ROOM = "backend schema.yml: Refuse to start a second slot where there is no room for it"
LOCKS = ("backend lock.yml: Hold the deploy lock of this host",)
MODELS = "backend models.yml: Ensure the models are on the host"
BACKEND_CHECKS = "backend preflight.yml: Note the problems found"
NGINX, NGINX_COMPOSE = "nginx conf/nginx.conf.j2", "nginx compose.yaml.j2"
NGINX_RUN, NGINX_FILES = (
    "nginx run.yml: Ensure nginx's container is as its Compose file says, and healthy",
    "nginx configure.yml: Ensure the configuration that nginx has accepted, the files that it carries and its"
    " Compose definition",
)
GIVEN, MADE = (
    "nginx main.yml: Ensure the given certificate and its key",
    "nginx tls_selfsigned_make.yml: Ensure the certificate",
)
NGINX_CHECKS = "nginx preflight.yml: Check the settings"
CERTIFICATE_CHECKS = "nginx preflight.yml: Check certificate and key"


class Case(NamedTuple):
    """Another value of a variable, where it arrives, what it reads there, and what else has to be set for that.

    `alone`: another variable of the same place would hide it.
    """

    value: Any
    places: tuple[str, ...]
    reads: str = ""
    beside: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    alone: bool = False


def verifier(password: str, user: str) -> str:
    return str(scram_verifier(password, salt_text=f"testhost/{user}"))


def case(value: Any, *places: str, reads: str = "", **beside: Any) -> Case:
    return Case(value, places, reads or str(value), beside)


DEBIAN_12: dict[str, Any] = {
    "__docker_host_preflight": {"facts": PREFLIGHT | {"os": {"id": "debian", "codename": "bookworm"}}}
}
REVISION = {"revision": "0002", "name": "less", "contract": "0001", "sql": "SELECT 1;"}
CONTRACTS = {
    "__backend_now": {"kept": [], "release": "r"},
    "__backend_plan_read": {"current": "0001", "head": "0002", "oldest": None, "pending": [REVISION]},
}
IN_20_DAYS = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + 20 * 86400))
CERTIFICATE = {"not_after": IN_20_DAYS, "not_before": "20260101000000Z", "public_key": "k", "subject_alt_name": []}
PROVIDED = {
    "nginx_tls_mode": "provided",
    "__nginx_certificate": CERTIFICATE,
    "__nginx_private_key": {"public_key": "k"},
}
PULLED = {"backend_image": "r.example/b:1"}

CASES: dict[str, Case] = {
    # docker_host
    "docker_host_project_dir": case(
        "/srv/stack",
        *(
            PG_COMPOSE,
            PG_RUN,
            REDIS_COMPOSE,
            REDIS_RUN,
            RELEASE,
            SECRETS,
            *CHANGES,
            NGINX_COMPOSE,
            NGINX_RUN,
            NGINX_FILES,
        ),
        *(LOOK, COMMAND, HEALTH),
        *("docker_host teardown_data.yml: Look for releases of pulled images",),
    ),
    "docker_host_project_name": case(
        *("mybot", LOOK, COMMAND, HEALTH, PROJECT, "docker_host opt/tradingbot/.env.j2", PG_DATA, PG_CHECKS),
        "docker_host teardown.yml: Look for what the stack has in the engine",
    ),
    "docker_host_services": case(["zz-service"], COMMAND, PROJECT, LOOK, HEALTH, reads="zz-service"),
    "docker_host_supported_distributions": case(["debian 99"], LOOK, reads="debian 99"),
    "docker_host_architectures": case(["riscv64"], LOOK, reads="riscv64"),
    # Long enough not to be in the controller's time by chance, which goes to the same task.
    "docker_host_memory_min_mb": case(180700001, LOOK),
    "docker_host_disk_min_mb": case(307900002, LOOK),
    "docker_host_project_disk_min_mb": case(519000003, LOOK),
    "docker_host_clock_offset_max": case(370000004, LOOK),
    "docker_host_required_ports": case([9443], LOOK, reads="9443"),
    "docker_host_required_names": case(["names.example"], LOOK, reads="names.example"),
    "docker_host_engine_minimum": case("27.7.7", LOOK),
    "docker_host_compose_minimum": case("2.77.8", LOOK),
    "docker_host_repository_url": case(
        "https://docker.example/linux", "docker_host repository.yml: Ensure Docker's repository is known", **DEBIAN_12
    ),
    "docker_host_repository_key": case(
        "0" * 40,
        "docker_host repository.yml: Refuse packages that somebody else has signed",
        __docker_host_key={"url": "https://docker.example/gpg"},
        __docker_host_key_found=["F" * 40],
    ),
    "docker_host_registry_mirrors": case(
        ["http://mirror.example:5000"], "docker_host etc/docker/daemon.json.j2", LOOK, reads="mirror.example"
    ),
    "docker_host_daemon_options": case(
        {"data-root": "/data/docker"},
        *("docker_host etc/docker/daemon.json.j2", LOOK, PG_DATA),
        reads="/data/docker",
    ),
    "docker_host_sysctls": case({"vm.swappiness": 7}, LOOK, reads="vm.swappiness"),
    "docker_host_network_subnet": case("10.77.0.0/24", LOOK, NETWORK, PG_HBA, RELEASE),
    "docker_host_network_bridge": case("br-other", LOOK, NETWORK, FIREWALL),
    "docker_host_firewall_enabled": case(False, "docker_host main.yml: Filter what comes in"),
    "docker_host_firewall_ssh_sources": case(["192.0.2.9"], FIREWALL, LOOK, reads="192.0.2.9"),
    "docker_host_firewall_ssh_port": case(2277, FIREWALL, LOOK, docker_host_firewall_ssh_sources=["192.0.2.9"]),
    "docker_host_firewall_web_sources": case(["192.0.2.8"], FIREWALL, LOOK, reads="192.0.2.8"),
    "docker_host_firewall_web_ports": case([7443], FIREWALL, reads="7443"),
    "docker_host_firewall_web_connections": case(67, FIREWALL, reads="ct count over 67"),
    "docker_host_firewall_web_connections_exempt": case(["192.0.2.4"], FIREWALL, LOOK, reads="192.0.2.4"),
    "docker_host_firewall_rules": case([{"ports": [7001], "sources": ["192.0.2.7"]}], FIREWALL, reads="7001"),
    "docker_host_firewall_rollback_seconds": case(
        67, "docker_host etc/systemd/system/tradingbot-firewall-rollback.timer.j2"
    ),
    "docker_host_health_thresholds": case({"tls_days": 4242}, LOOK, COMMAND, HEALTH, reads="4242"),
    # postgres
    "postgres_project_dir": case("/srv/stack", PG_COMPOSE, PG_RUN),
    "postgres_project_name": case("mybot", PG_DATA, PG_CHECKS),
    "postgres_version": case("17", PG_COMPOSE, reads="postgres:17-alpine")._replace(alone=True),
    "postgres_image": case("r.example/postgres:1", PG_COMPOSE),
    "postgres_pull": case("never", PG_RUN),
    "postgres_docker_root": case("/data/docker", PG_DATA),
    "postgres_wait_timeout": case(187, PG_RUN),
    "postgres_superuser_password": case("zz-superuser", "postgres secrets/postgres_pgpass.j2"),
    "postgres_owner_password": case("zz-owner", PG_SQL, reads=verifier("zz-owner", "keeper")),
    "postgres_password": case("zz-service", PG_SQL, reads=verifier("zz-service", "trader")),
    "postgres_readonly_password": case("zz-reader", PG_SQL, reads=verifier("zz-reader", "looker")),
    "postgres_database": case("trades", PG_HBA, PG_SQL, SECRETS, PG_CHECKS),
    "postgres_user": case("trader", PG_HBA, PG_SQL, SECRETS),
    "postgres_owner_user": case("keeper", PG_HBA, PG_SQL, SECRETS),
    "postgres_readonly_user": case("looker", PG_HBA, PG_SQL),
    "postgres_allowed_networks": case(["10.78.0.0/24"], PG_HBA, reads="10.78.0.0/24"),
    "postgres_publish": case(["10.0.0.5:5432:5432"], PG_COMPOSE, reads="10.0.0.5:5432:5432"),
    "postgres_memory_mb": case(777, PG_COMPOSE, reads="777M"),
    "postgres_cpus": case(1.7, PG_COMPOSE, reads="1.7"),
    "postgres_shm_mb": case(77, PG_COMPOSE, reads="77m"),
    "postgres_pids": case(377, PG_COMPOSE, reads="pids: 377"),
    "postgres_max_connections": case(137, PG_CONF, reads="max_connections = '137'"),
    "postgres_settings": case({"work_mem": "7777kB"}, PG_CONF, reads="work_mem = '7777kB'"),
    "postgres_stop_grace_period": case("77s", PG_COMPOSE),
    "postgres_log_max_size": case("9m", PG_COMPOSE),
    "postgres_log_max_file": case(17, PG_COMPOSE, reads='max-file: "17"'),
    # redis
    "redis_project_dir": case("/srv/stack", REDIS_COMPOSE, REDIS_RUN),
    "redis_image": case("r.example/redis:1", REDIS_COMPOSE),
    "redis_pull": case("never", REDIS_RUN),
    "redis_wait_timeout": case(127, REDIS_RUN),
    "redis_password": case("zz-cache", REDIS_ACL, reads=hashlib.sha256(b"zz-cache").hexdigest()),
    "redis_health_password": case("zz-health", "redis configure.yml: Ensure Redis can read its secrets"),
    "redis_user": case("cachebot", REDIS_ACL, SECRETS),
    "redis_publish": case(["10.0.0.6:6379:6379"], REDIS_COMPOSE, reads="10.0.0.6:6379:6379"),
    "redis_memory_mb": case(177, REDIS_COMPOSE, reads="177M"),
    "redis_cpus": case(0.7, REDIS_COMPOSE, reads="0.7"),
    "redis_pids": case(87, REDIS_COMPOSE, reads="pids: 87"),
    "redis_maxmemory_policy": case("noeviction", REDIS_CONF),
    "redis_settings": case({"tcp-keepalive": 77}, REDIS_CONF, reads="tcp-keepalive 77"),
    "redis_stop_grace_period": case("77s", REDIS_COMPOSE),
    "redis_log_max_size": case("9m", REDIS_COMPOSE),
    "redis_log_max_file": case(17, REDIS_COMPOSE, reads='max-file: "17"'),
    # backend
    "backend_project_dir": case("/srv/stack", RELEASE, SECRETS, *CHANGES),
    "backend_image": case("r.example/b:1", PULL, RUNS),
    "backend_pull": case("always", PULL, **PULLED),
    "backend_registry_url": case("r.example", LOGIN),
    "backend_registry_username": case("zz-user", LOGIN),
    "backend_registry_password": case("zz-token", LOGIN),
    "backend_wait_timeout": case(133, *CHANGES),
    "backend_version": case("7.7.7", RELEASE, BUILD, RUNS),
    "backend_vcs_ref": case("zz-commit", BUILD),
    "backend_build_context": case("/nowhere/zz", BACKEND_CHECKS),
    "backend_build_python_image": case("r.example/python:1", BUILD),
    "backend_build_pip_conf": case("/etc/pip.conf", BUILD, reads="build/secrets/pip_conf"),
    "backend_build_ca_bundle": case("/etc/ca.pem", BUILD, reads="build/secrets/ca_bundle"),
    "backend_push": case("r.example/zz", "backend push.yml: Ensure the image has its names in the registry"),
    "backend_sbom": case("zz.json", "backend sbom.yml: Ensure the list of its parts is on the controller"),
    "backend_build_extras": case(["inference"], BUILD, reads="inference"),
    "backend_environment": case("development", RELEASE, reads='ENVIRONMENT: "development"'),
    "backend_database_url": case("postgresql://zz@db.example/zz", SECRETS),
    "backend_schema_database_url": case("postgresql://zz-owner@db.example/zz", SECRETS),
    "backend_redis_url": case("redis://zz@cache.example/0", SECRETS),
    "backend_secret_key": case("zz-secret", SECRETS),
    "backend_webhook_secret": case("zz-webhook", SECRETS),
    "backend_encryption_key": case("zz-key", SECRETS),
    "backend_encryption_key_old": case("zz-old", SECRETS),
    "backend_notify_urls": case("json://zz.example", SECRETS),
    "backend_sentry_dsn": case("https://zz@errors.example/1", SECRETS),
    "backend_cors_origins": case(["https://zz.example"], RELEASE, reads="https://zz.example"),
    "backend_binance_testnet": case(False, RELEASE, reads='BINANCE_TESTNET: "false"'),
    "backend_docs_enabled": case(True, RELEASE, reads='DOCS_ENABLED: "true"'),
    "backend_public_url": case("https://public.example", RELEASE),
    "backend_forwarded_allow_ips": case(["10.79.0.0/24"], RELEASE, reads="10.79.0.0/24"),
    "backend_log_level": case("warning", RELEASE),
    "backend_extra_environment": case({"ZZ_NAME": "zz"}, RELEASE, reads="ZZ_NAME"),
    "backend_models": case([{"name": "zz-model", "version": "1", "src": "/nowhere"}], MODELS, reads="zz-model"),
    "backend_slots": case({"blue": "10.80.0.2"}, *CHANGES, reads="10.80.0.2"),
    "backend_publish": case(["127.0.0.1:7001:8001"], *CHANGES, LOOK, reads="7001"),
    "backend_drain_timeout": case(29, *CHANGES),
    "backend_keep_releases": case(66, *CHANGES),
    "backend_deploy_memory_mb": case(377, ROOM),
    "backend_deploy_disk_mb": case(1077, ROOM),
    "backend_deploy_wait": case(77, *LOCKS),
    "backend_deploy_take_over": case(True, *LOCKS),
    "backend_allow_contract": case(
        True,
        "backend schema.yml: Refuse a change of the schema that the running version cannot live with",
        reads="the head of the version that runs is not known",
        **CONTRACTS,
    ),
    "backend_release": case("7.7.7", ROLLS_BACK),
    "backend_workers": case(7, RELEASE, reads='WORKERS: "7"'),
    "backend_cpus": case(1.7, RELEASE, reads='cpus: "1.7"'),
    "backend_memory_mb": case(777, RELEASE, reads="777M"),
    "backend_worker_cpus": case(0.6, RELEASE, reads='cpus: "0.6"'),
    "backend_worker_memory_mb": case(577, RELEASE, reads="577M"),
    "backend_pids": case(277, RELEASE),
    "backend_stop_grace_period": case("77s", RELEASE),
    "backend_log_max_size": case("7m", RELEASE),
    "backend_log_max_file": case(17, RELEASE, reads='max-file: "17"'),
    # nginx
    "nginx_project_dir": case("/srv/stack", NGINX_COMPOSE, NGINX_RUN, NGINX_FILES),
    "nginx_image": case("r.example/nginx:1", NGINX_COMPOSE, NGINX_FILES),
    "nginx_pull": case("never", NGINX_RUN),
    "nginx_wait_timeout": case(67, NGINX_RUN),
    "nginx_environment": case("development", NGINX_CHECKS, reads="[]", nginx_tls_mode="selfsigned"),
    "nginx_http_publish": case("127.0.0.1:7080", NGINX_COMPOSE, LOOK, reads="7080"),
    "nginx_https_publish": case("127.0.0.1:7443", NGINX_COMPOSE, LOOK, reads="7443"),
    "nginx_redirect_port": case(7444, NGINX),
    "nginx_server_names": case(["zz.example"], NGINX, reads="zz.example"),
    "nginx_trusted_proxies": case(["192.0.2.6"], NGINX, reads="192.0.2.6"),
    "nginx_internal_networks": case(["192.0.2.5"], NGINX, reads="192.0.2.5"),
    "nginx_tls_mode": case("provided", "nginx main.yml: Ensure a self-signed certificate", reads="False"),
    "nginx_allow_plain_http": case(
        True, NGINX_CHECKS, reads="[]", nginx_tls_mode="off", nginx_environment="development"
    ),
    "nginx_allow_self_signed": case(True, NGINX_CHECKS, reads="[]", nginx_server_names=["zz.example"]),
    "nginx_tls_certificate": case("zz-certificate", GIVEN),
    "nginx_tls_private_key": case("zz-key", GIVEN),
    "nginx_tls_min_days": case(27, CERTIFICATE_CHECKS, reads="in less than nginx_tls_min_days (27)", **PROVIDED),
    "nginx_tls_selfsigned_days": case(377, MADE),
    "nginx_tls_groups": case(["P-521"], NGINX, reads="ssl_ecdh_curve P-521;"),
    "nginx_hsts": case("max-age=77", NGINX),
    "nginx_api_rate": case(67, NGINX, reads="rate=67r/m"),
    "nginx_api_burst": case(27, NGINX, reads="burst=27 "),
    "nginx_webhook_rate": case(377, NGINX, reads="rate=377r/m"),
    "nginx_webhook_burst": case(37, NGINX, reads="burst=37 "),
    "nginx_webhook_client_rate": case(6077, NGINX, reads="rate=6077r/m"),
    "nginx_webhook_client_burst": case(677, NGINX, reads="burst=677 "),
    "nginx_client_connections": case(107, NGINX, reads="limit_conn client 107;"),
    "nginx_retry_after": case(17, NGINX, reads='"17"'),
    "nginx_maintenance_retry_after": case(377, NGINX, reads='"377"'),
    "nginx_body_limit": case("77k", NGINX),
    "nginx_webhook_body_limit": case("67k", NGINX),
    "nginx_upstreams": case({"backend-zz": "10.81.0.2:8001"}, NGINX, reads="10.81.0.2:8001"),
    "nginx_upstream_keepalive": case(37, NGINX, reads="keepalive 37;"),
    "nginx_upstream_keepalive_timeout": case("47s", NGINX),
    "nginx_proxy_connect_timeout": case("7s", NGINX, reads="proxy_connect_timeout 7s;"),
    "nginx_proxy_read_timeout": case("67s", NGINX, reads="proxy_read_timeout 67s;"),
    "nginx_webhook_read_timeout": case("8s", NGINX, reads="proxy_read_timeout 8s;"),
    "nginx_websocket_timeout": case("7h", NGINX),
    "nginx_gzip_min_length": case(577, NGINX),
    "nginx_static_max_age": case(3677, NGINX),
    "nginx_csp_api": case("default-src 'zz-api'", NGINX),
    "nginx_csp_docs": case("default-src 'zz-docs'", NGINX),
    "nginx_csp_static": case("default-src 'zz-static'", NGINX),
    "nginx_csp_maintenance": case("default-src 'zz-closed'", NGINX),
    "nginx_worker_processes": case(3, NGINX, reads="worker_processes 3;"),
    "nginx_worker_connections": case(4077, NGINX),
    "nginx_shutdown_timeout": case(4127, NGINX, NGINX_RUN),
    "nginx_stop_grace_period": case("37s", NGINX_COMPOSE),
    "nginx_cpus": case("1.7", NGINX_COMPOSE),
    "nginx_memory": case("177m", NGINX_COMPOSE),
    "nginx_pids": case(87, NGINX_COMPOSE, reads="pids_limit: 87"),
    "nginx_log_max_size": case("9m", NGINX_COMPOSE),
    "nginx_log_max_files": case(17, NGINX_COMPOSE, reads='max-file: "17"'),
}


@cache
def specified(role: str) -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())
    options: dict[str, Any] = found["argument_specs"]["main"]["options"]
    return options


def together() -> dict[tuple[str, tuple[str, ...]], list[str]]:
    """Return the variables of each place that are set at once: rendering costs more than looking.

    Those that reach another role, or need others beside them, are set one by one.
    """
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, given in CASES.items():
        for place in given.places:
            alone = given.alone or given.beside or not name.startswith(place.partition(" ")[0] + "_")
            found.setdefault((place, (name,) if alone else ()), []).append(name)
    return found


def test_every_variable_has_a_case() -> None:
    names = [name for role in ROLES for name in specified(role)]
    assert sorted(names) == sorted(CASES)


@pytest.mark.parametrize(
    ("at", "names"),
    together().items(),
    ids=lambda part: part[0].partition(": ")[0] if isinstance(part, tuple) else ",".join(part),
)
def test_variables_arrive_and_their_defaults_are_gone(at: tuple[str, tuple[str, ...]], names: list[str]) -> None:
    place, beside = at[0], CASES[names[0]].beside
    usual = text(place, dict(beside))
    found = text(place, {name: CASES[name].value for name in names} | beside)
    words = [CASES[name].reads for name in names]
    assert [word for word in words if sum(word in other for other in words) > 1] == [], "which one is it?"
    defaults = {name: option.get("default") for role in ROLES for name, option in specified(role).items()}
    for name, word in zip(names, words, strict=True):
        assert word not in usual, (name, place)
        assert word in found, (name, place)
        default = defaults[name]
        if isinstance(default, str) and re.search(r"\W", default) and len(default) > 8:
            assert default not in found, (name, place)


def literals(path: Path) -> list[str]:
    """Return the texts in a file that a machine reads: of a module those outside of documentation and defaults."""
    if path.suffix != ".py":
        return [path.read_text()]
    tree = ast.parse(path.read_text())
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else "" for key in node.keys]
            passed |= {id(value) for key, value in zip(keys, node.values, strict=True) if key == "default"}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in passed]
    return [node.value for node in constants if isinstance(node.value, str)]


@cache
def named() -> set[str]:
    """Return the defaults that name something: a path, an address, a network, an image."""
    found: set[str] = set()
    for role in ROLES:
        for option in specified(role).values():
            value = option.get("default")
            found |= {item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)}
    return {word for word in found if re.fullmatch(r"/[a-z/]+|br-\w+|[0-9.]+/[1-9]\d*|tradingbot_\w+|\w+:\S+", word)}


# What a person is told to write, for example.
EXAMPLES = {
    ("plugins/modules/preflight.py", "172.20.0.0/16"),
    ("plugins/filter/address_at.py", "172.20.0.0/16"),
    ("roles/docker_host/tasks/preflight.yml", "/opt/tradingbot"),
    ("roles/docker_host/tasks/preflight.yml", "br-tradingbot"),
    # Where the engine keeps its data unless daemon.json says otherwise.
    ("roles/docker_host/tasks/preflight.yml", "/var/lib/docker"),
}


def test_no_default_is_written_a_second_time() -> None:
    assert {"/opt/tradingbot", "172.20.0.0/16", "br-tradingbot", "tradingbot_readonly", "redis:7-alpine"} <= named()
    files = [
        path for part in ("tasks", "templates", "vars", "files") for path in (ROOT / "roles").glob(f"*/{part}/**/*")
    ]
    files += [*(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "plugins").rglob("*.py")]
    read = {str(path.relative_to(ROOT)): literals(path) for path in files if path.is_file()}
    found = {
        (path, word) for path, texts in read.items() for word in named() if any(word in literal for literal in texts)
    }
    assert found - EXAMPLES == set()


def test_all_compose_files_name_the_network_that_is_made() -> None:
    made = yaml.safe_load((ROOT / "roles/docker_host/vars/main.yml").read_text())["__docker_host_network"]
    for place in (PG_COMPOSE, REDIS_COMPOSE, RELEASE, NGINX_COMPOSE):
        assert yaml.safe_load(text(place, {}))["networks"]["tradingbot"]["name"] == made
    engine = ast.parse((ROOT / "plugins/module_utils/slots_record.py").read_text())
    assert made in [node.value for node in ast.walk(engine) if isinstance(node, ast.Constant)]
