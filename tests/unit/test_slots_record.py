"""The record of the slots: what follows from it, and what is no record."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tradingbot.stack.plugins.module_utils import failures, target
from ansible_collections.tradingbot.stack.plugins.module_utils import slots_engine as engine
from ansible_collections.tradingbot.stack.plugins.module_utils import slots_record as records

ADDRESSES = {"blue": "172.20.255.251", "green": "172.20.255.252"}


@pytest.fixture
def layout(tmp_path: Path) -> records.Layout:
    made = records.Layout(tmp_path, ADDRESSES)
    made.releases.mkdir(parents=True)
    (tmp_path / ".env").write_text("# Ansible managed\nCOMPOSE_PROJECT_NAME=mybot\n")
    for number, release in enumerate(("1.0-a", "1.1-b", "1.1-c")):
        about = {"version": release[:3], "image": release, "secrets": ["database_url", f"of_{release[-1]}"]}
        records.write_release(made, release, about | {"schema_head": "0001", "used": float(number)})
    return made


def test_the_compose_file_follows_from_the_record(layout: records.Layout) -> None:
    record = records.Record("blue", {"blue": "1.0-a", "green": "1.1-b"}, "1.0-a")
    assert records.write_record(layout, record)
    assert not records.write_record(layout, record), "nothing changes the second time"
    found = yaml.safe_load(layout.compose_file.read_text())
    assert set(found["services"]) == {"backend-blue", "backend-green", "worker"}
    green = found["services"]["backend-green"]
    assert green["extends"] == {"file": "releases/1.1-b.yaml", "service": "backend"}
    assert green["networks"]["tradingbot"]["ipv4_address"] == "172.20.255.252"
    assert set(found["secrets"]) == {"database_url", "of_a", "of_b"}, "those of all releases that run"
    assert records.read_record(layout) == record


def test_a_host_without_a_record_runs_nothing(layout: records.Layout) -> None:
    record = records.read_record(layout)
    assert (record.active, record.release, record.leftovers()) == (None, None, [])
    records.write_record(layout, record)
    assert yaml.safe_load(layout.compose_file.read_text()) == {"services": {}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not the record"),
        ("[]", "not the record"),
        ('{"active": "blue"}', "not the record"),
        ('{"active": "blue", "slots": {"blue": null}, "worker": null}', "names no release"),
    ],
)
def test_what_is_no_record_is_refused_and_kept(layout: records.Layout, text: str, why: str) -> None:
    layout.record_file.write_text(text)
    with pytest.raises(records.SlotError, match=why):
        records.read_record(layout)
    assert layout.record_file.read_text() == text


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("", "1.1-b"), ("1.0", "1.0-a"), ("1.1", "1.1-b"), ("1.1-c", "1.1-c")],
    ids=["the one before", "a version", "a version that also runs", "the one that runs"],
)
def test_a_release_is_chosen_by_name_or_version(layout: records.Layout, wanted: str, chosen: str) -> None:
    assert records.choose(layout, records.Record("blue", {"blue": "1.1-c"}, "1.1-c"), wanted) == chosen


@pytest.mark.parametrize(
    ("wanted", "why"),
    [("9", "no release 9 is kept on this host; there are: 1.1-c, 1.1-b"), ("1.1", "several.*1.1-c, 1.1-b")],
)
def test_what_cannot_be_chosen_is_refused_with_what_can(layout: records.Layout, wanted: str, why: str) -> None:
    with pytest.raises(records.SlotError, match=why):
        records.choose(layout, records.Record("blue", {"blue": "1.0-a"}, "1.0-a"), wanted)


def test_a_release_that_never_ran_is_not_gone_back_to(layout: records.Layout) -> None:
    records.write_release(layout, "2.0-d", {"version": "2.0", "image": "d", "secrets": [], "schema_head": "0001"})
    record = records.Record("blue", {"blue": "1.1-c"}, "1.1-c")
    assert records.choose(layout, record, "") == "1.1-b"
    with pytest.raises(records.SlotError, match=r"no release 2\.0 is kept"):
        records.choose(layout, record, "2.0")


def test_there_may_be_nothing_to_go_back_to(tmp_path: Path) -> None:
    layout = records.Layout(tmp_path, ADDRESSES)
    layout.releases.mkdir(parents=True)
    with pytest.raises(records.SlotError, match="no release to go back to"):
        records.choose(layout, records.Record("blue", {"blue": "1.0-a"}, "1.0-a"), "")


def test_what_is_known_of_a_release_is_kept_on_top(layout: records.Layout) -> None:
    records.write_release(layout, "1.0-a", {"schema_head": "0002"})
    found = records.read_release(layout, "1.0-a")
    assert (found["schema_head"], found["image"], found["used"]) == ("0002", "1.0-a", 0.0)


def test_the_log_gets_a_line_for_each_change(layout: records.Layout) -> None:
    for number in range(2):
        records.append_log(layout, {"number": number, "reason": "two\nlines"})
    lines = layout.log_file.read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 1]


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    inode = path.stat().st_ino
    assert records.write(path, "new")
    assert path.stat().st_ino != inode
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"


def test_nginx_is_told_the_slot_in_its_own_words() -> None:
    assert 'map "" $active_backend { default backend-green; }' in engine.upstream_text("green")


class Table:
    """proc(5)'s table of TCP connections, as the web server's network has it."""

    HEADER = "  sl  local_address rem_address   st tx_queue rx_queue"
    ROW = "   0: 020014AC:D43A {address}:1F41 {state} 00000000:00000000"


def test_open_requests_are_the_connections_that_are_no_websockets(
    layout: records.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    blue, green, established, closing = "FBFF14AC", "FCFF14AC", "01", "06"
    pairs = [(blue, established)] * 4 + [(green, established)] * 2 + [(blue, closing)] * 3
    table = "\n".join([Table.HEADER, *(Table.ROW.format(address=a, state=s) for a, s in pairs)])
    second = "\n".join([Table.HEADER, Table.ROW.format(address=blue, state=established)])
    host = engine.Engine(layout)
    monkeypatch.setattr(host, "_proxies", lambda: [{"State": {"Pid": 77}}, {"State": {"Pid": 78}}])
    tables = {"/proc/77/net/tcp": table, "/proc/78/net/tcp": second}
    monkeypatch.setattr(Path, "read_text", lambda self: tables[str(self)])
    metrics = "# TYPE tradingbot_websocket_connections gauge\ntradingbot_websocket_connections 3.0\n"
    monkeypatch.setattr(host, "request", lambda slot, method, path: (200, metrics))
    assert host.open_requests("blue") == 2


def test_the_state_of_a_container_is_asked_over_the_socket(
    layout: records.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, Any] = {"/containers/json?": [{"Id": "f00"}]}
    answers["/containers/f00/json"] = {"State": {"Running": True, "Pid": 77}, "RestartCount": 2}
    asked = []

    def get(resource: str, **_: Any) -> Any:
        asked.append(urllib.parse.unquote(resource))
        return next((answer for start, answer in answers.items() if resource.startswith(start)), None)

    monkeypatch.setattr(target, "docker_get", get)
    host = engine.Engine(layout)
    assert host.state("worker") == engine.State(True, 2, 77)
    assert '"com.docker.compose.service=worker"' in asked[0]
    assert '"com.docker.compose.project=mybot"' in asked[0]
    answers["/containers/json?"] = []
    assert host.state("worker") is None
    del answers["/containers/json?"]
    with pytest.raises(records.SlotError, match="the Docker engine does not answer"):
        host.state("worker")


def test_a_single_run_belongs_to_the_project(layout: records.Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    host, ran = engine.Engine(layout), []

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, int("worker" in command), '{"schema": {"oldest": "0001"}}', "")

    monkeypatch.setattr(host, "_run", run)
    assert host.oldest_schema_user("1.0-a") == "0001"
    assert ran[1][2:4] == ("-p", "mybot")


@pytest.mark.parametrize("ask", [lambda host: host.up("worker"), lambda host: host.oldest_schema_user("1.0-a")])
def test_what_a_program_says_is_told_without_secrets(
    layout: records.Layout, monkeypatch: pytest.MonkeyPatch, ask: Callable[[engine.Engine], object]
) -> None:
    (layout.project_dir / "secrets").mkdir()
    (layout.project_dir / "secrets/secret_key").write_text("key-0123456789\n")
    host = engine.Engine(layout)
    # Longer than what is told of it: the secret is where it is cut.
    said = f"key-0123456789{'x' * (failures.MOST_CHARACTERS - 5)} with key-0123456789"
    monkeypatch.setattr(host, "_run", lambda *command: subprocess.CompletedProcess(command, 1, "", said))
    with pytest.raises(records.SlotError) as refused:
        ask(host)
    assert "456789" not in str(refused.value)
    assert f"x with {failures.MASK}" in str(refused.value)


def test_a_folder_without_a_project_is_refused(layout: records.Layout) -> None:
    (layout.project_dir / ".env").unlink()
    with pytest.raises(records.SlotError, match="names no Compose project"):
        engine.Engine(layout).state("worker")


@pytest.fixture
def proxy(layout: records.Layout) -> Path:
    """Lay out the web server's files as its role does; return their folder."""
    folder = layout.upstream_file.parents[1]
    for name in ("conf/apply.sh", "conf/nginx.conf", "live/maintenance.conf", "live/upstream.conf"):
        path = folder / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text("# text\n")
        path.chmod(0o644)
    return folder


def test_a_web_server_that_can_read_its_files_is_left_alone(layout: records.Layout, proxy: Path) -> None:
    (proxy / "conf/nginx.conf").chmod(0o775)
    (proxy / "live/maintenance.conf").unlink()
    assert engine.Engine(layout).let_proxy_read() == []
    assert (proxy / "conf/nginx.conf").stat().st_mode & 0o777 == 0o775


def test_a_host_without_a_web_server_is_left_alone(layout: records.Layout) -> None:
    assert engine.Engine(layout).let_proxy_read() == []


@pytest.mark.parametrize(
    ("name", "mode", "right"),
    [
        ("conf/nginx.conf", 0o600, 0o644),
        ("conf/apply.sh", 0o640, 0o644),
        ("live", 0o700, 0o755),
        ("conf", 0o744, 0o755),
    ],
)
def test_what_the_web_server_may_not_read_gets_its_mode_back(
    layout: records.Layout, proxy: Path, name: str, mode: int, right: int
) -> None:
    (proxy / name).chmod(mode)
    assert engine.Engine(layout).let_proxy_read() == [name]
    assert (proxy / name).stat().st_mode & 0o777 == right
    assert engine.Engine(layout).let_proxy_read() == []
