"""The part of the official images that the roles rely on, checked on whatever image the local registry holds.

The table in README.md has a line for each image; everything that it says is checked here.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .conftest import Container, Start, config_of

POSTGRES, REDIS, NGINX, PYTHON, DEBIAN = (
    "postgres:15-alpine",
    "redis:7-alpine",
    "nginx:1.30-alpine",
    "python:3.13-slim",
    "debian:trixie-slim",
)
# A test's data need not outlive a power cut.
FAST = ["--env", "POSTGRES_INITDB_ARGS=--no-sync --data-checksums"]


def user_of_main_process(container: Container) -> str:
    return container.output("stat", "-c", "%u:%g", "/proc/1")


# --- postgres ---------------------------------------------------------------------------------------------------------


def is_ready(container: Container) -> bool:
    """Tell whether it answers over TCP, which the server that initialises a database does not."""
    return container.run("pg_isready", "--host", "127.0.0.1").returncode == 0


def sql(container: Container, query: str, *, user: str = "postgres", database: str = "postgres") -> str:
    return container.output("psql", "--no-psqlrc", "-At", "-U", user, "-d", database, "-c", query)


def password_is_taken(container: Container, password: str, *, user: str = "postgres") -> bool:
    """Tell whether *password* lets *user* in over TCP, from an address that is not loopback."""
    query = ["psql", "-U", user, "-d", "postgres", "-h", container.address(), "-c", "SELECT 1"]
    return container.run("env", f"PGPASSWORD={password}", *query).returncode == 0


@pytest.fixture(scope="module")
def postgres(start: Start) -> Container:
    container = start(POSTGRES, options=[*FAST, "--env", "POSTGRES_PASSWORD=right"])
    container.wait_until(lambda: is_ready(container))
    return container


def test_postgres_is_version_15_with_contrib(postgres: Container) -> None:
    assert sql(postgres, "SHOW server_version").startswith("15.")
    sql(postgres, "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pgcrypto")


def test_postgres_image() -> None:
    config = config_of(POSTGRES)
    assert "PGDATA=/var/lib/postgresql/data" in config["Env"]
    assert list(config["Volumes"]) == ["/var/lib/postgresql/data"]
    assert "5432/tcp" in config["ExposedPorts"]
    assert config["Cmd"] == ["postgres"]
    assert config["StopSignal"] == "SIGINT"


def test_postgres_user_is_70(postgres: Container) -> None:
    assert (postgres.output("id", "-u", "postgres"), postgres.output("id", "-g", "postgres")) == ("70", "70")


@pytest.mark.parametrize("tool", ["psql", "pg_isready", "pg_dump"])
def test_postgres_tool_is_on_path(postgres: Container, tool: str) -> None:
    assert "15." in postgres.output(tool, "--version")


def test_postgres_started_as_root_steps_down(postgres: Container) -> None:
    assert user_of_main_process(postgres) == "70:70"
    assert postgres.output("stat", "-c", "%u %a", "/var/lib/postgresql/data") == "70 700"


def test_postgres_started_as_70_without_rights(start: Start) -> None:
    hardened = ["--user", "70:70", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    writable = ["--tmpfs", "/tmp", "--tmpfs", "/var/run/postgresql:mode=3775,uid=70,gid=70"]
    container = start(POSTGRES, options=[*hardened, *writable, *FAST, "--env", "POSTGRES_PASSWORD=right"])
    container.wait_until(lambda: is_ready(container))
    assert user_of_main_process(container) == "70:70"


def test_postgres_listens_on_all_addresses(postgres: Container) -> None:
    assert sql(postgres, "SHOW listen_addresses") == "*"


def test_postgres_asks_for_the_password_over_tcp(postgres: Container) -> None:
    assert password_is_taken(postgres, "right")
    assert not password_is_taken(postgres, "wrong")
    assert sql(postgres, "SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'postgres'") == "t"


VARIABLES = {
    "POSTGRES_USER": "someone",
    "POSTGRES_DB": "some-data",
    "POSTGRES_PASSWORD": "right",
    "POSTGRES_INITDB_ARGS": "--no-sync --data-checksums",
}


@pytest.mark.parametrize("by_file", [False, True], ids=["plain", "file"])
def test_postgres_variables(start: Start, folder: Path, by_file: bool) -> None:
    options = ["--volume", f"{folder}:/run/secrets:ro"]
    for name, value in VARIABLES.items():
        (folder / name).write_text(f"{value}\n")
        options += ["--env", f"{name}_FILE=/run/secrets/{name}" if by_file else f"{name}={value}"]
    # Started as root it reads files that are root's.
    (folder / "POSTGRES_PASSWORD").chmod(0o400)
    container = start(POSTGRES, options=options)
    container.wait_until(lambda: is_ready(container))
    assert sql(container, "SHOW data_checksums", user="someone", database="some-data") == "on"
    assert password_is_taken(container, "right", user="someone")
    assert not password_is_taken(container, "wrong", user="someone")


def test_postgres_database_is_named_after_its_user(start: Start) -> None:
    container = start(POSTGRES, options=[*FAST, "--env", "POSTGRES_PASSWORD=right", "--env", "POSTGRES_USER=someone"])
    container.wait_until(lambda: is_ready(container))
    assert sql(container, "SELECT current_database()", user="someone", database="someone") == "someone"


@pytest.mark.parametrize("name", VARIABLES)
def test_postgres_refuses_a_variable_given_twice(start: Start, name: str) -> None:
    twice = ["--env", f"{name}=one", "--env", f"{name}_FILE=/etc/hostname"]
    container = start(POSTGRES, options=["--env", "POSTGRES_PASSWORD=right", *twice])
    assert container.exit_code() == 1
    assert f"both {name} and {name}_FILE are set" in container.logs()


def test_postgres_refuses_to_start_without_a_password(start: Start) -> None:
    container = start(POSTGRES)
    assert container.exit_code() == 1
    assert "superuser password is not specified" in container.logs()


def test_postgres_init_files_run_once_with_the_options_given(start: Start, folder: Path) -> None:
    (folder / "1.sql").write_text("CREATE TABLE told AS SELECT current_setting('work_mem') AS line;")
    for name, mode in (("2.sh", 0o755), ("3.sh", 0o644)):
        (folder / name).write_text(
            "#!/bin/sh\n"
            f'psql -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "INSERT INTO told VALUES (\'{name} $(id -u)\')"\n'
        )
        (folder / name).chmod(mode)
    (folder / "4.txt").write_text("is not run")
    mounted = ["--volume", f"{folder}:/docker-entrypoint-initdb.d:ro", "--env", "POSTGRES_DB=some-data"]
    container = start(POSTGRES, "-c", "work_mem=12MB", options=[*FAST, *mounted, "--env", "POSTGRES_PASSWORD=right"])
    container.wait_until(lambda: is_ready(container))

    def told() -> str:
        return sql(container, "SELECT line FROM told", database="some-data")

    assert told().splitlines() == ["12MB", "2.sh 70", "3.sh 70"]
    assert sql(container, "SHOW work_mem") == "12MB"
    container.restart()
    container.wait_until(lambda: is_ready(container))
    assert told().splitlines() == ["12MB", "2.sh 70", "3.sh 70"]


def test_postgres_ends_when_an_init_file_fails(start: Start, folder: Path) -> None:
    (folder / "1.sql").write_text("SELECT 1 / 0;")
    mounted = ["--volume", f"{folder}:/docker-entrypoint-initdb.d:ro"]
    container = start(POSTGRES, "postgres", options=[*FAST, *mounted, "--env", "POSTGRES_PASSWORD=right"])
    assert container.exit_code() != 0
    assert "division by zero" in container.logs()


def test_postgres_stops_fast_although_a_client_is_at_work(start: Start) -> None:
    container = start(POSTGRES, options=[*FAST, "--env", "POSTGRES_PASSWORD=right"])
    container.wait_until(lambda: is_ready(container))
    with subprocess.Popen(
        ["docker", "exec", container.name, "psql", "-U", "postgres", "-c", "SELECT pg_sleep(60)"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ):
        container.wait_until(
            lambda: sql(container, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'") == "1"
        )
        seconds, code = container.stop()
    assert (seconds < 10, code) == (True, 0)
    assert "received fast shutdown request" in container.logs()


# --- redis ------------------------------------------------------------------------------------------------------------


def answers_ping(container: Container, port: int = 6379) -> bool:
    return container.run("redis-cli", "-p", str(port), "ping").stdout.strip() == "PONG"


@pytest.fixture(scope="module")
def redis(start: Start) -> Container:
    container = start(REDIS)
    container.wait_until(lambda: answers_ping(container))
    return container


def test_redis_is_version_7(redis: Container) -> None:
    assert "v=7." in redis.output("redis-server", "--version")
    assert "redis-cli 7." in redis.output("redis-cli", "--version")


def test_redis_image() -> None:
    config = config_of(REDIS)
    assert list(config["Volumes"]) == ["/data"]
    assert config["WorkingDir"] == "/data"
    assert "6379/tcp" in config["ExposedPorts"]


def test_redis_user_is_999_and_group_1000(redis: Container) -> None:
    assert (redis.output("id", "-u", "redis"), redis.output("id", "-g", "redis")) == ("999", "1000")


def test_redis_started_as_root_steps_down(redis: Container) -> None:
    assert user_of_main_process(redis) == "999:1000"


def test_redis_started_as_999_without_rights(start: Start) -> None:
    hardened = ["--user", "999:1000", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    container = start(REDIS, options=hardened)
    container.wait_until(lambda: answers_ping(container))
    assert container.output("redis-cli", "save") == "OK"
    assert container.output("stat", "-c", "%u %a", "/data/dump.rdb") == "999 600"


@pytest.mark.parametrize("form", ["option", "file", "command"])
def test_redis_arguments(start: Start, folder: Path, form: str) -> None:
    (folder / "redis.conf").write_text("port 6380\nmaxmemory 5mb\n")
    arguments = {
        "option": ["--port", "6380", "--maxmemory", "5mb"],
        "file": ["/etc/redis/redis.conf"],
        "command": ["redis-server", "/etc/redis/redis.conf"],
    }[form]
    container = start(REDIS, *arguments, options=["--volume", f"{folder}:/etc/redis:ro"])
    container.wait_until(lambda: answers_ping(container, 6380))
    assert container.output("redis-cli", "-p", "6380", "config", "get", "maxmemory").split()[1] == str(5 * 1024 * 1024)
    assert user_of_main_process(container) == "999:1000"


def test_redis_keeps_its_data_when_stopped_in_order(start: Start) -> None:
    container = start(REDIS)
    container.wait_until(lambda: answers_ping(container))
    container.output("redis-cli", "set", "key", "kept")
    container.restart()
    container.wait_until(lambda: answers_ping(container))
    assert container.output("redis-cli", "get", "key") == "kept"


def test_redis_runs_another_command_as_it_is(start: Start) -> None:
    container = start(REDIS, "id", "-u")
    assert container.exit_code() == 0
    assert container.logs() == "0"


# --- nginx ------------------------------------------------------------------------------------------------------------

NGINX_CONFIG = """
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events {}
http {
    access_log /dev/stdout;
    include /etc/nginx/mime.types;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    resolver 127.0.0.1;
    upstream backend { zone backend 64k; server backend.invalid:8001 resolve; }
    server {
        listen 8080;
        root /srv;
        location / { limit_rate 100k; }
        location /status { stub_status; }
        location /upstream { proxy_pass http://backend; }
    }
}
"""


@pytest.fixture
def start_nginx(start: Start, folder: Path) -> Container:
    (folder / "nginx.conf").write_text(NGINX_CONFIG)
    (folder / "large.bin").write_bytes(bytes(300_000))
    (folder / "small.css").write_text("a {}")
    hardened = ["--user", "101:101", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    container = start(
        NGINX,
        *["nginx", "-c", "/srv/nginx.conf", "-g", "daemon off;"],
        options=[*hardened, "--tmpfs", "/tmp:uid=101,gid=101", "--volume", f"{folder}:/srv:ro"],
    )
    container.wait_until(lambda: container.run("curl", "-sf", "http://127.0.0.1:8080/status").returncode == 0)
    return container


def test_nginx_serves_as_101_with_a_configuration_of_ours(start_nginx: Container) -> None:
    assert user_of_main_process(start_nginx) == "101:101"
    answer = start_nginx.output("curl", "-s", "-D", "-", "http://127.0.0.1:8080/small.css")
    assert "Content-Type: text/css" in answer
    assert answer.endswith("a {}")


def test_nginx_version_and_modules(start_nginx: Container) -> None:
    told = start_nginx.run("nginx", "-V").stdout
    version = told.split("nginx/")[1].split()[0]
    assert tuple(int(part) for part in version.split(".")[:2]) >= (1, 30)
    for module in ("http_ssl", "http_v2", "http_realip", "http_stub_status"):
        assert f"--with-{module}_module" in told


def test_nginx_user_is_101(start_nginx: Container) -> None:
    assert (start_nginx.output("id", "-u", "nginx"), start_nginx.output("id", "-g", "nginx")) == ("101", "101")


def test_nginx_image() -> None:
    config = config_of(NGINX)
    assert config["StopSignal"] == "SIGQUIT"
    assert config["Cmd"] == ["nginx", "-g", "daemon off;"]


def test_nginx_serves_as_it_comes(start: Start) -> None:
    container = start(NGINX)
    container.wait_until(lambda: container.run("curl", "-s", "http://127.0.0.1:80/").returncode == 0)
    container.wait_until(lambda: '"GET / HTTP/1.1"' in container.logs())


def test_nginx_ends_gracefully(start: Start, start_nginx: Container) -> None:
    url = f"http://{start_nginx.address()}:8080/large.bin"
    client = start(NGINX, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{size_download} %{time_total}", url)
    start_nginx.wait_until(lambda: start_nginx.output("curl", "-s", "http://127.0.0.1:8080/status").split()[2] == "2")
    seconds, code = start_nginx.stop()
    assert code == 0
    assert seconds > 0.5, "the download was over before nginx was told to stop"
    assert client.exit_code() == 0
    assert client.logs().split()[:2] == ["200", "300000"]


# --- python, debian ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python(start: Start) -> Container:
    return start(PYTHON, "sleep", "600")


@pytest.mark.parametrize("command", ["python", "python3"])
def test_python_is_version_3_13(python: Container, command: str) -> None:
    assert python.output(command, "--version").startswith("Python 3.13.")


def test_python_makes_virtual_environments_with_pip(python: Container) -> None:
    python.output("python", "-m", "venv", "/tmp/environment")
    assert "python 3.13" in python.output("/tmp/environment/bin/pip", "--version")
    python.output("python", "-m", "venv", "--without-pip", "/tmp/bare")
    assert python.output("/tmp/bare/bin/python", "-c", "import sqlite3, ssl, zoneinfo; print('fine')") == "fine"


def test_python_knows_time_zones_and_authorities(python: Container) -> None:
    zone = "import zoneinfo; print(zoneinfo.ZoneInfo('Europe/Berlin'))"
    authorities = "import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 50)"
    assert python.output("python", "-c", zone) == "Europe/Berlin"
    assert python.output("python", "-c", authorities) == "True"


def test_debian_is_version_13(start: Start) -> None:
    container = start(DEBIAN, "cat", "/etc/os-release")
    assert container.exit_code() == 0
    assert "VERSION_CODENAME=trixie" in container.logs()
