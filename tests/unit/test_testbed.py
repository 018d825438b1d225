"""The parts of the test bed that only read and compute."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testbed import base, demo, engine, images, machine, shell

DEB822 = """\
Types: deb
URIs: http://deb.example/debian-security
Suites: trixie-security

Enabled: yes
Types: deb
URIs: http://deb.example/debian/
Suites: trixie trixie-updates
"""


@pytest.mark.parametrize(
    ("file", "text", "mirror"),
    [
        ("sources.list", "deb http://deb.example/debian trixie main\n", "http://deb.example/debian"),
        ("sources.list", "deb https://deb.example/debian/ trixie main\n", "https://deb.example/debian"),
        (
            "sources.list",
            "deb [arch=amd64 signed-by=/k] http://deb.example/debian trixie main\n",
            "http://deb.example/debian",
        ),
        (
            "sources.list",
            "# deb http://old.example/debian a\ndeb http://deb.example/debian a\n",
            "http://deb.example/debian",
        ),
        (
            "sources.list",
            "deb http://deb.example/debian-security a\ndeb http://x.example/debian a\n",
            "http://x.example/debian",
        ),
        ("sources.list.d/debian.sources", DEB822, "http://deb.example/debian"),
    ],
    ids=["one line", "slash at the end", "options", "comment", "security first", "deb822"],
)
def test_mirror_is_found_in_apt_s_sources(tmp_path: Path, file: str, text: str, mirror: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert machine.mirror_in(tmp_path) == mirror


def test_a_machine_without_a_mirror_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://archive.example/ubuntu noble main\n")
    with pytest.raises(shell.TestbedError, match="give it access to a registry"):
        machine.mirror_in(tmp_path)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["nameserver 10.0.0.2\nnameserver 10.0.0.3\n"], ["10.0.0.2", "10.0.0.3"]),
        (["nameserver 127.0.0.53\n", "nameserver 10.0.0.2\n"], ["10.0.0.2"]),
        (["nameserver 127.0.0.1\nnameserver ::1\nnameserver fd00::1\n"], ["fd00::1"]),
        (["search example\n# nameserver 10.0.0.9\n"], ["9.9.9.9", "1.1.1.1"]),
        ([], ["9.9.9.9", "1.1.1.1"]),
    ],
    ids=["usable", "stub resolver", "loopback", "none named", "no file"],
)
def test_name_servers_are_those_that_containers_reach(tmp_path: Path, files: list[str], found: list[str]) -> None:
    paths = [tmp_path / "missing"]
    for number, text in enumerate(files):
        paths.append(tmp_path / str(number))
        paths[-1].write_text(text)
    assert machine.usable_nameservers(paths) == found


def test_pip_settings_that_builds_need_are_kept() -> None:
    listed = (
        "global.index-url='https://packages.example/simple'\n:env:.timeout='60'\nglobal.user='true'\ninstall.x='y'\n"
    )
    assert machine.pip_conf_of(listed) == "[global]\nindex-url = https://packages.example/simple\ntimeout = 60\n"


@pytest.mark.parametrize("listed", ["", "global.user='true'\n", "global.disable-pip-version-check='1'\n"])
def test_no_pip_settings_when_there_is_nothing_to_hand_on(listed: str) -> None:
    assert machine.pip_conf_of(listed) == ""


def test_digest_changes_with_name_content_and_extra(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    first = base.digest(tmp_path / "a")
    assert first == base.digest(tmp_path / "a")
    assert len({first, base.digest(tmp_path / "b"), base.digest(tmp_path / "a", extra="y"), base.digest()}) == 4
    (tmp_path / "a").write_text("y")
    assert base.digest(tmp_path / "a") != first


@pytest.mark.parametrize(("managed", "weight"), [(False, "4096"), (True, "1024")])
def test_containers_weigh_more_only_where_nobody_else_weighs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, managed: bool, weight: str
) -> None:
    shares = tmp_path / "cpu.shares"
    monkeypatch.setattr(engine, "CPU_SHARES", shares)
    monkeypatch.setattr(engine, "has_service_manager", lambda: managed)
    engine.weigh_containers()
    assert not shares.exists()
    shares.write_text("1024")
    engine.weigh_containers()
    assert shares.read_text() == weight


def test_every_stand_in_has_a_recipe_and_a_line_in_its_contract() -> None:
    contract = (Path(base.__file__).parent / "README.md").read_text()
    for stand_in in images.STAND_INS:
        assert (images.RECIPES / stand_in.recipe / "Dockerfile").is_file()
        assert f"| `{stand_in.official}` |" in contract


SIGNAL = {
    "received_at": "2026-11-24T06:25:40.320338Z",
    "symbol": "BTCUSDT",
    "action": "buy",
    "quantity": "0.02",
    "market_position": None,
    "position_size": None,
    "price": "67250.5",
    "status": "ordered",
    "status_reason": None,
    "prediction": None,
}


PREDICTION = {
    "status": "ok",
    "outcome": "sell",
    "probabilities": {"buy": "0.252702", "sell": "0.747298"},
    "reason": None,
}


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, {"time": "06:25:40", "alert": "buy 0.02", "price": "67250.5", "model": "", "reason": ""}),
        ({"action": "close", "quantity": None, "price": None}, {"alert": "close", "price": ""}),
        ({"market_position": "long", "position_size": "0.05"}, {"alert": "be long 0.05"}),
        ({"market_position": "flat"}, {"alert": "be flat"}),
        ({"status": "refused", "status_reason": "too much"}, {"status": "refused", "reason": "too much"}),
        ({"prediction": {"status": "failed", "reason": "new"}}, {"model": "failed", "reason": "new"}),
        ({"prediction": PREDICTION}, {"model": "sell 75%", "reason": ""}),
        ({"prediction": PREDICTION, "status_reason": "too much"}, {"model": "sell 75%", "reason": "too much"}),
    ],
)
def test_the_demo_shows_what_was_wanted_and_what_came_of_it(changes: dict[str, object], shown: dict[str, str]) -> None:
    row = demo.signal_row(SIGNAL | changes)
    assert {name: row[name] for name in shown} == shown


def test_a_table_is_aligned_and_begins_with_the_oldest(capsys: pytest.CaptureFixture[str]) -> None:
    demo.show("Orders", [{"side": "sell", "average_price": "2"}, {"side": "buy", "average_price": "1"}])
    assert capsys.readouterr().out == "\nOrders\n  SIDE  AVERAGE PRICE\n  buy   1\n  sell  2\n"
    demo.show("Orders", [])
    assert capsys.readouterr().out == "\nOrders: none\n"
