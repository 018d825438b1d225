"""The benchmarks understand what other programs print, and say so when they do not."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import yaml
from small_host import render

from tests.bench import __main__ as bench
from tests.bench import backend, deploy, host, load, memory, parsers, rollout, trading
from tests.bench.report import Aim, Report, Row, number
from tests.load.result import Close, Result, Socket
from tests.testbed.hosts import Host

AB = """
Complete requests:      1000
Failed requests:        0
Requests per second:    589.14 [#/sec] (mean)
Time per request:       34.585 [ms] (mean)

Percentage of the requests served within a certain time (ms)
  50%     15
  99%     45
 100%    171 (longest request)
"""

STATS = (
    '{"Name":"tradingbot-nginx-1","MemUsage":"7.5MiB / 128MiB"}\n'
    '{"Name":"tradingbot-redis-1","MemUsage":"3.73MiB / 2.312GiB"}\n'
)

PLAY = """
PLAY RECAP *********************************************************************
bench                      : ok=58   changed=2    unreachable=0    failed=0    skipped=25   rescued=0    ignored=0

TASKS RECAP ********************************************************************
tradingbot.stack.backend : Ensure the service is up and healthy --------- 1.55s

ROLES RECAP ********************************************************************
Tuesday 24 November 2026  02:15:39 +0000 (0:00:02.140)       0:00:45.737 ******
===============================================================================
nginx ------------------------------------------------------------------ 10.90s
docker_host ------------------------------------------------------------- 6.79s
~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
total ------------------------------------------------------------------ 45.72s
"""


def wrk_line(**changes: int) -> str:
    found = {"requests": 2000, "duration_us": 4_000_000, "p50_us": 5500, "p99_us": 55_000, "bad_status": 0, "broken": 0}
    return (
        "Running 4s test\nresult " + json.dumps(found | {"accepted": 0, "unavailable": 0, "other": 0} | changes) + "\n"
    )


def test_wrk_rate_and_latencies() -> None:
    assert parsers.wrk(wrk_line()) == parsers.Load(2000, 500.0, 5.5, 55.0)


@pytest.mark.parametrize("changes", [{"bad_status": 1}, {"broken": 1}, {"requests": 0}])
def test_wrk_with_a_failed_request_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="success"):
        parsers.wrk(wrk_line(**changes))


def test_wrk_without_a_result_is_refused() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        parsers.wrk("unable to connect to 127.0.0.1:24443 Connection refused")


def test_alerts_are_those_that_were_taken_in() -> None:
    load = parsers.wrk(wrk_line(accepted=1900, unavailable=100, bad_status=100), alerts=True)
    assert (load.requests, load.rate, load.unavailable) == (1900, 475.0, 100)


@pytest.mark.parametrize("changes", [{"accepted": 1999, "other": 1}, {"accepted": 0}, {"accepted": 1999, "broken": 1}])
def test_alerts_with_a_wrong_answer_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="success"):
        parsers.wrk(wrk_line(**changes), alerts=True)


def test_ab_rate_and_latencies() -> None:
    assert parsers.ab(AB) == parsers.Load(1000, 589.14, 15.0, 45.0)


@pytest.mark.parametrize(
    "text",
    [
        AB.replace("Failed requests:        0", "Failed requests:        3"),
        AB + "Non-2xx responses:      7\n",
        "apr_socket",
    ],
)
def test_ab_with_a_failed_request_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"3 requests failed|7 were answered|nothing like"):
        parsers.ab(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("7.5MiB", 7_864_320), ("0B", 0), ("1.5 GB", 1_500_000_000), ("2kB", 2000)]
)
def test_sizes_as_docker_writes_them(text: str, expected: int) -> None:
    assert parsers.size(text) == expected


@pytest.mark.parametrize("text", ["", "7.5", "MiB", "3 apples"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parsers.size(text)


def test_docker_stats_by_container() -> None:
    assert parsers.docker_stats(STATS) == {"tradingbot-nginx-1": 7_864_320, "tradingbot-redis-1": 3_911_188}


def test_resident_memory_of_several_processes_adds_up() -> None:
    text = "0-1 ---p [rollup]\nRss: 300 kB\nPss: 100 kB\nPss_Anon: 90 kB\n1-2 ---p [rollup]\nRss:  30 kB\nPss:  20 kB\n"
    assert parsers.smaps(text) == (120 * 1024, 330 * 1024)
    with pytest.raises(ValueError, match="no process"):
        parsers.smaps("")


def test_recap_of_a_play() -> None:
    assert parsers.ansible(PLAY) == parsers.Play(58, 2, {"nginx": 10.9, "docker_host": 6.79})


@pytest.mark.parametrize(
    "text", [PLAY.replace("failed=0", "failed=1"), PLAY.replace("unreachable=0", "unreachable=1"), ""]
)
def test_a_play_that_did_not_get_through_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="did not get through"):
        parsers.ansible(text)


def test_an_aim_compares_the_value_or_the_ratio() -> None:
    row = Row("health", 1500, "req/s", 2000, "direct")
    assert row.met(Aim(1000, at_least=True))
    assert not row.met(Aim(1000))
    assert row.met(Aim(0.7, at_least=True, of_ratio=True))
    assert not row.met(Aim(0.8, at_least=True, of_ratio=True))
    with pytest.raises(ValueError, match="no baseline"):
        Row("health", 1500, "req/s").met(Aim(0.7, of_ratio=True))


def test_the_report_says_whether_an_aim_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report({"processors": "2"})
    report.add("Health", Row("nginx", 1500, "req/s", 2000, "direct", (Aim(1000, at_least=True), Aim(10))))
    line = "| nginx | 1,500 req/s | 0.75 of direct (2,000) | ≥ 1000: met, ≤ 10: not met |"
    assert line in report.markdown()
    assert "1,500 req/s" in capsys.readouterr().out
    assert report.as_json()["chapters"]["Health"][0]["aims"] == [
        {"aim": "≥ 1000", "met": True},
        {"aim": "≤ 10", "met": False},
    ]


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (45.67, "45.7"), (0.123, "0.12"), (7, "7")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_the_inventory_opens_the_backend_to_the_test_bed_only() -> None:
    made = host.inventory(Host("bench", "10.99.0.9", 2222, {"22": 2222}))["all"]
    assert isinstance(made, dict)
    variables = made["hosts"]["bench"]
    assert variables["ansible_port"] == 2222
    assert variables["docker_host_firewall_rules"] == [{"ports": [8001], "sources": ["10.99.0.0/24"]}]
    assert set(made["children"]) == {"docker_host", "postgres", "redis", "backend", "nginx"}


def test_a_message_shows_no_token() -> None:
    assert load.address("http://127.0.0.1:1/api/v1/webhooks/tradingview/tok") == "http://127.0.0.1:1/api/v1/webhooks/…"
    assert load.address(load.NGINX + load.HEALTH) == load.NGINX + load.HEALTH


def test_a_whole_run_takes_all_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time from alert to fill is taken before the load, which leaves alerts in the queue."""
    taken: list[str] = []
    for part in (backend, deploy, trading, rollout, load, memory):
        monkeypatch.setattr(part, "measure", lambda *_, name=part.__name__: taken.append(name.rpartition(".")[2]))
    monkeypatch.setattr(memory, "measure_image", lambda *_: None)
    monkeypatch.setattr(bench, "machine", dict)
    monkeypatch.setattr(bench, "write", lambda _: None)
    monkeypatch.setattr(bench, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(host, "create", lambda: None)
    bench.measure(None)
    assert taken == ["backend", "deploy", "memory", "trading", "rollout", "load", "memory"]


def test_the_memory_of_every_service_is_taken() -> None:
    text = render("backend", "backend/release.yaml.j2", __backend_local_image="any", __backend_secrets={})
    described = {"postgres", "redis", "nginx", *yaml.safe_load(text)["services"]}
    assert described == {*memory.SERVICES, "schema", "tool"}, "these two are not there but for single runs"


def test_other_ways_run_the_same_release_beside_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they are compared in is the change, so all else is the stack's own."""
    ran: list[str] = []

    def on_host(_: Host, *command: str, timeout: float = 0) -> str:
        ran.append(command[-1])
        if command[0] == "cat":
            return json.dumps({"active": "green", "slots": {"blue": None, "green": "1.0-abc"}})
        return json.dumps({"secrets": {"secret_key": {"file": "/opt/tradingbot/secrets/secret_key"}}})

    monkeypatch.setattr(host, "on_host", on_host)
    rollout.Elsewhere(Host("bench", "10.99.0.2", 1, {}))
    text = shlex.split(ran[-1].partition("printf %s ")[2])[0]
    project = yaml.safe_load(text)
    release = {"file": "/opt/tradingbot/backend/releases/1.0-abc.yaml", "service": "backend"}
    assert project["services"]["app"]["extends"] == project["services"]["other"]["extends"] == release
    assert project["secrets"] == {"secret_key": {"file": "/opt/tradingbot/secrets/secret_key"}}
    assert project["services"]["web"]["image"] == "nginx:1.30-alpine"


def test_a_change_is_noted_with_what_its_clients_saw(capsys: pytest.CaptureFixture[str]) -> None:
    plain, seen = Result(), Result(answered={"POST alert": 7})
    seen.fail("POST alert", "status 502", "Bad Gateway")
    seen.sockets.append(Socket(0, closes=[Close(1.0, 1012, ""), Close(2.0, 1006, "")]))
    report = Report({})
    rollout.note(report, "change", (3.0, seen), (2.0, plain), Aim(45))
    told = [(row.what, row.value, row.baseline) for row in report.chapters["Deploys"]]
    assert told == [
        ("change", 3.0, 2.0),
        ("change: failed requests", 1, None),
        ("change: WebSockets cut off without 1012", 1, None),
    ]
    assert "of 8" in capsys.readouterr().out


class FakeSocket:
    """A WebSocket that has these messages for us."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = [json.dumps(message) for message in messages]

    def recv(self, timeout: float) -> str:
        if not self._messages:
            raise TimeoutError
        return self._messages.pop(0)


def test_a_fill_belongs_to_the_signal_of_its_order() -> None:
    order = {"type": "order", "data": {"id": "o1", "signal_id": "s1"}}
    fill = {"type": "fill", "data": {"id": "f1", "order_id": "o1"}}
    health = {"type": "health", "data": {}}
    socket: Any = FakeSocket({"type": "signal", "data": {"id": "s1"}}, order, health, fill, fill)
    assert list(trading.watch(socket)) == ["s1"]


@pytest.mark.parametrize(("percent", "expected"), [(50, 50.0), (99, 99.0), (100, 100.0), (1, 1.0)])
def test_percentiles_are_by_nearest_rank(percent: int, expected: float) -> None:
    assert trading.percentile([float(number) for number in range(1, 101)], percent) == expected
