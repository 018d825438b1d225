"""A host that has nothing of the stack yet is refused for what is wrong with it, and left as it is."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DATA = "/var/lib/docker/volumes/tradingbot_postgres_data/_data"
# No refusal shows it.
UNTOLD = "p5Zr2Wq9Tn4Xk6Vb3Mh8Yd1Lc7Gf0Js2"
PRODUCTION = {"nginx_environment": "production", "backend_environment": "production"}
UNIT = """
[Service]
ExecStart=/usr/bin/python3 -m http.server 443 --directory /srv
[Install]
WantedBy=multi-user.target
"""

Refuses = Callable[..., str]
OnHost = Callable[..., str]


@pytest.fixture(autouse=True, scope="module")
def bare(on_host: OnHost) -> None:
    """The host must be as it was made; `molecule destroy -s refusals` brings it back to that."""
    assert on_host("command -v docker nft; find /opt /var/lib/docker -mindepth 1").split() == []


@pytest.fixture(scope="module", autouse=True)
def ready(on_host: OnHost, bare: None) -> Iterator[None]:
    yield
    assert on_host("find /opt /var/lib/docker -mindepth 1").split() == []


# --- the means of proof

CHANGES = {
    "/etc/hostname": ("touch /etc/hostname", "true"),
    "/etc/timezone": ("cp /etc/timezone /root/copy; cat /root/copy > /etc/timezone", "rm /root/copy"),
    "/opt/tradingbot": ("mkdir /opt/tradingbot", "rmdir /opt/tradingbot"),
    "/srv": ("chmod 0700 /srv", "chmod 0755 /srv"),
    "/proc/sys/net/core/somaxconn": ("sysctl -qw net.core.somaxconn=99", "sysctl -qw net.core.somaxconn=4096"),
    "addresses: 1: lo": ("ip address add 192.0.2.1 dev lo", "ip address del 192.0.2.1/32 dev lo"),
}


def test_a_change_shows(on_host: OnHost, changes: Callable[[], Callable[[], list[str]]]) -> None:
    changed = changes()
    assert changed() == []
    on_host("; ".join(do for do, _ in CHANGES.values()))
    try:
        found = changed()
    finally:
        on_host("; ".join(undo for _, undo in CHANGES.values()))
    assert [name for name in CHANGES if not any(line.startswith(name) for line in found)] == []


# --- what the inventory lacks


def test_unfit_secrets_and_what_is_not_filled_in(refuses: Refuses, inventory: Path, tmp_path: Path) -> None:
    """Found together, and before the first connection."""
    copied = tmp_path / "inventory"
    variables = copied / "group_vars" / "all"
    variables.mkdir(parents=True)
    (copied / "hosts.yml").write_text((inventory / "ansible_inventory.yml").read_text())
    for source in (inventory / "group_vars" / "all").glob("*.yml"):
        kept = [line for line in source.read_text().splitlines() if not line.startswith("vault_redis_health_password")]
        (variables / source.name).write_text("\n".join(kept))

    make, edit, delete = r"ansible-playbook tradingbot\.stack\.secrets -i", "ansible-vault edit .*", "delete its line"
    again = f"{edit}{delete}.*{make}"
    same = "p7Zr2Wq9Tn4Xk6Vb3Mh8Yd5Lc1Gf0Js2Ra7Q"
    printed = refuses(
        [
            ("vault_redis_health_password", "not set", make),
            ("vault_postgres_superuser_password", "is empty", again),
            ("vault_postgres_password", "is a placeholder", again),
            ("vault_postgres_readonly_password", "is shorter than 32 characters", again),
            ("vault_redis_password", "has fewer than 10 different characters", again),
            ("vault_backend_encryption_key", "is not urlsafe base64 of 32 bytes", again),
            (
                "vault_backend_secret_key, vault_backend_webhook_secret",
                "have the same value",
                f"{edit}delete the lines of all but the one in use.*{make}",
            ),
            ("nginx_server_names", "is still the placeholder CHANGE_ME", r"sed -i .*bot\.example\.com"),
            ("tls_certificate_file", "/nowhere/fullchain.pem is not there", "install -D .*/nowhere/fullchain.pem"),
        ],
        {
            "demo_secrets": str(inventory / ".secrets"),
            "vault_postgres_superuser_password": "",
            "vault_postgres_password": "CHANGE_ME_7Zr2Wq9Tn4Xk6Vb3Mh8Yd5Lc1Gf0J",
            "vault_postgres_readonly_password": "q3Tn8Vw2Zk7Xb5Mh9Rd4Lc6Gf1Js0Yp",
            "vault_redis_password": "kqz9" * 12,
            "vault_backend_encryption_key": "w8Tn3Vw7Zk2Xb6Mh1Rd9Lc4Gf5Js0Yp8Qa3Wb7Ne",
            "vault_backend_secret_key": same,
            "vault_backend_webhook_secret": same,
            "nginx_server_names": ["CHANGE_ME"],
            "tls_certificate_file": "/nowhere/fullchain.pem",
        },
        at=copied,
    )
    assert "Gather the facts" not in printed


# --- what the host lacks


@pytest.fixture
def taken(on_host: OnHost) -> Iterator[None]:
    """A web server of somebody else's on port 443. The way out that the refusal names ends it."""
    on_host("cat > /etc/systemd/system/somebody.service && systemctl enable --now --quiet somebody", UNIT)
    on_host("timeout 10 sh -c 'until ss -Hltn sport = :443 | grep -q .; do sleep 0.1; done'")
    yield
    on_host("systemctl disable --now --quiet somebody; rm -f /etc/systemd/system/somebody.service")
    on_host("systemctl daemon-reload")


@pytest.fixture
def old_data(on_host: OnHost) -> Iterator[None]:
    """Data of PostgreSQL 14, as an earlier installation of Docker left it."""
    on_host(f"mkdir -p {DATA} && echo 14 > {DATA}/PG_VERSION")
    yield
    on_host("rm -r /var/lib/docker/volumes")


@pytest.mark.usefixtures("taken", "old_data")
def test_what_others_left_on_the_host(refuses: Refuses, on_host: OnHost) -> None:
    """No variable is set for this: the host itself is the reason."""
    out = "systemctl disable --now somebody.service"
    refuses(
        [
            ("port 443", r"python3 \(pid \d+\) listens on it", f"^{out}$"),
            (
                "postgres_version",
                "tradingbot_postgres_data holds data of PostgreSQL 14, which PostgreSQL 15 cannot read",
                '`postgres_version: "14"`.*pg_dump.*docker volume rm tradingbot_postgres_data',
            ),
        ]
    )
    on_host(out)
    assert on_host("ss -Hltn sport = :443") == ""


def test_all_problems_are_reported_together(refuses: Refuses) -> None:
    printed = refuses(
        [
            ("operating system", "this is debian 13 trixie, supported are debian 1", "docker_host_supported_distr"),
            ("architecture", "this is .*, supported are s390x", "docker_host_architectures"),
            ("memory", r"the host has \d+ MiB, 99999999 MiB are needed", "docker_host_memory_min_mb"),
            ("disk space at /var/lib/docker", r"\d+ MiB are free, 99999999 MiB are needed", "docker_host_disk_min_mb"),
            (
                "disk space at /opt/trading bot",
                "88888888 MiB are needed",
                r"df -h /opt.*docker_host_project_disk_min_mb",
            ),
            (
                "clock",
                r"is [+-]\d+\.\d s off the controller's",
                "timedatectl set-ntp true.*docker_host_clock_offset_max",
            ),
            ("name nosuch.invalid", "does not resolve on the host", "getent hosts nosuch.invalid.*/etc/resolv.conf"),
            ("subnet 10.99.0.0/24", "the host reaches 10.99.0.0/24 by eth0", "docker_host_network_subnet"),
            ("docker_host_project_dir", "`/opt/trading bot` is not a full path", "_project_dir: /opt/tradingbot`"),
            ("docker_host_project_name", "Docker Compose refuses `My Bot`", "_project_name: tradingbot`"),
            ("docker_host_network_name", "since 0.4.0 there is none", "take it out"),
            ("docker_host_network_bridge", "`bot0` does not begin with `br-`", "_bridge: br-tradingbot`"),
            ("redis_key_prefix", "the backend's keys begin with tradingbot:", "take it out"),
            ("docker_host_firewall_ssh_sources", "empty: .*nobody in by SSH", r"_ssh_sources: \[10\.99\.0\.1\]"),
            ("firewall source", "'10.99.0.1/24' is neither an address nor a network", "write it like 192.0.2.7"),
            ("postgres_memory_mb", "64 MiB is less than 256", "`postgres_memory_mb: 512`"),
            ("postgres_max_connections", "152", "postgres_memory_mb"),
            ("redis_memory_mb", "9999999 MiB is .* more than the host's", "`redis_memory_mb: 256`"),
            ("backend_public_url", "http://bot.example.com is not an HTTPS address", "https://<name of the server>"),
            ("backend_worker_memory_mb", "64 MiB is less than the 128", "`backend_worker_memory_mb: 512`"),
            ("backend_models", r"lstm 1: there is no model\.onnx .* in /nowhere", "name the folder with .* in `src`"),
            ("backend_extra_environment", r"decide LOG_LEVEL, SECRET_KEY, .*`docker inspect`", "`backend_secret_key`"),
            ("backend_stop_grace_period", "within 5s .* it may take 30 s", "`backend_stop_grace_period: 30s`"),
            ("backend_notify_urls", "not an address in Apprise's form", "one address a line"),
            ("backend_sentry_dsn", "not the address of a Sentry project", "copy the DSN"),
            ("nginx_tls_mode", "`off` would carry .* in clear text in production", "nginx_tls_mode: provided"),
            ("nginx_server_names", "host names of other people", r"nginx_server_names: \["),
        ],
        {
            **PRODUCTION,
            "docker_host_supported_distributions": ["debian 1"],
            "docker_host_architectures": ["s390x"],
            "docker_host_memory_min_mb": 99999999,
            "docker_host_disk_min_mb": 99999999,
            "docker_host_project_disk_min_mb": 88888888,
            "docker_host_clock_offset_max": -1,
            "docker_host_registry_mirrors": ["http://nosuch.invalid:5000"],
            "docker_host_project_dir": "/opt/trading bot",
            "docker_host_project_name": "My Bot",
            "docker_host_network_name": "bots",
            "docker_host_network_subnet": "10.99.0.0/24",
            "docker_host_network_bridge": "bot0",
            "redis_key_prefix": "bot:",
            "docker_host_firewall_ssh_sources": [],
            "docker_host_firewall_web_sources": ["10.99.0.1/24"],
            "postgres_memory_mb": 64,
            "redis_memory_mb": 9999999,
            "backend_public_url": "http://bot.example.com",
            "backend_worker_memory_mb": 64,
            "backend_models": [{"name": "lstm", "version": "1", "src": "/nowhere"}],
            "backend_extra_environment": {"LOG_LEVEL": "debug", "SECRET_KEY": UNTOLD},
            "backend_stop_grace_period": "5s",
            "backend_notify_urls": f"slack {UNTOLD}-2",
            "backend_sentry_dsn": f"{UNTOLD}-3",
            "nginx_tls_mode": "off",
            "nginx_server_names": [],
        },
    )
    assert UNTOLD not in printed


def test_a_value_of_the_wrong_kind(
    site: Callable[..., subprocess.CompletedProcess[str]], changes: Callable[[], Callable[[], list[str]]]
) -> None:
    """Ansible itself refuses it, in the preflight."""
    changed = changes()
    done = site({"backend_build_extras": ["ccxt"]})
    assert changed() == []
    assert done.returncode != 0
    assert "value of backend_build_extras must be one or more of: exchanges, inference" in done.stdout
    assert "PLAY [Bring the host" not in done.stdout
    assert " changed=0 " in done.stdout


def test_an_operator_who_would_be_locked_out(refuses: Refuses) -> None:
    refuses(
        [
            (
                "docker_host_firewall_ssh_sources",
                "this connection comes from 10.99.0.1, .* lock you out",
                r"add 10\.99\.0\.1 ",
            ),
            ("docker_host_firewall_ssh_port", "uses port 22, the firewall would open 2222", "_ssh_port: 22$"),
            ("nginx_tls_mode", "do not trust a self-signed certificate", "nginx_tls_mode: provided"),
        ],
        {
            **PRODUCTION,
            "docker_host_firewall_ssh_sources": ["192.0.2.0/24"],
            "docker_host_firewall_ssh_port": 2222,
            "backend_public_url": "https://bot.example.com",
        },
    )


# --- certificates


def certificate(folder: Path, names: list[str], days: tuple[int, int], key_of_another: bool = False) -> dict[str, Any]:
    """Make a certificate for *names*, valid between so many *days* from now; return the variables that give it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    given = ec.generate_private_key(ec.SECP256R1()) if key_of_another else key
    (folder / "fullchain.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        given.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {
        **PRODUCTION,
        "backend_public_url": "https://bot.example.com",
        "nginx_server_names": ["bot.example.com", "www.example.com"],
        "nginx_tls_mode": "provided",
        "tls_certificate_file": str(folder / "fullchain.pem"),
        "tls_private_key_file": str(folder / "privkey.pem"),
        "nginx_tls_certificate": "{{ lookup('ansible.builtin.file', tls_certificate_file) }}",
        "nginx_tls_private_key": "{{ lookup('ansible.builtin.file', tls_private_key_file) }}",
    }


def assert_key_is_not_told(folder: Path, printed: str) -> None:
    lines = (folder / "privkey.pem").read_text().splitlines()[1:-1]
    assert lines != []
    assert [line for line in lines if line in printed] == []


def test_a_certificate_with_everything_wrong(refuses: Refuses, tmp_path: Path) -> None:
    given = certificate(tmp_path, ["bot.example.com"], (-90, -1), key_of_another=True)
    printed = refuses(
        [
            ("nginx_tls_private_key", "does not belong to nginx_tls_certificate", "openssl pkey -pubout"),
            ("nginx_tls_certificate", r"it ended at \d{14}Z", "renew"),
            ("nginx_tls_certificate", r"covers bot\.example\.com, not .*www\.example\.com", "www.example.com"),
        ],
        given,
    )
    assert_key_is_not_told(tmp_path, printed)


def test_a_certificate_that_soon_ends(refuses: Refuses, tmp_path: Path) -> None:
    """One problem is enough, also when only a part of the stack is to be deployed."""
    given = certificate(tmp_path, ["*.example.com"], (-80, 10))
    printed = refuses(
        [("nginx_tls_certificate", r"it ends at \d{14}Z, .* nginx_tls_min_days \(14\)", "renew.*nginx_tls_min_days")],
        given,
        "--tags=postgres",
    )
    assert_key_is_not_told(tmp_path, printed)


def test_a_key_that_cannot_be_read_and_a_user_who_may_not(refuses: Refuses, tmp_path: Path) -> None:
    given = certificate(tmp_path, ["*.example.com"], (-1, 80))
    path = tmp_path / "privkey.pem"
    path.write_text(path.read_text().replace("BEGIN PRIVATE KEY", "BEGIN SOMETHING"))
    printed = refuses(
        [
            ("nginx_tls_certificate and nginx_tls_private_key", "one of them is .* not a readable", "openssl pkey"),
            ("privileges", r"uid \d+, not as root", "become: true"),
        ],
        {**given, "ansible_become": False},
    )
    assert_key_is_not_told(tmp_path, printed)
