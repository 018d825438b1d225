"""A replacement of nginx on a made-up host: who serves at each moment, and what is left when one fails or is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.tradingbot.stack.plugins.module_utils import nginx_engine, stack_network, target
from ansible_collections.tradingbot.stack.plugins.module_utils.host_change import ChangeError
from ansible_collections.tradingbot.stack.plugins.module_utils.nginx_replacement import Replacement

CHANGES = ["start second", "lead to second", "reconnect", "up", "lead back", "reconnect", "stop second"]


class Killed(BaseException):
    """The process ends here, as with SIGKILL: nothing of it runs any more."""


class FakeHost:
    """Two containers, of which rules of the engine's or of ours lead to one."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.own: str | None = "old"
        self.second: str | None = None
        self.led = False
        self.wanted = "new"
        self.fails: dict[str, str] = {}
        self.kill_after: int | None = None
        self.pulled = False
        self.compose_works = True

    def _do(self, call: str, effect: Callable[[], None], served_meanwhile: bool = True) -> None:
        if call in self.fails:
            raise ChangeError(self.fails[call])
        self.calls.append(call)
        effect()
        if served_meanwhile:
            assert self.serving, f"nobody is served after `{call}`"
        if self.kill_after == len(self.calls):
            raise Killed

    @property
    def serving(self) -> str | None:
        """The definition of the nginx that a new connection reaches."""
        return self.second if self.led else self.own

    def fetch_image(self) -> None:
        self.pulled = True

    def planned(self) -> str:
        return "start" if self.own is None else "" if self.own == self.wanted else "recreate"

    def up(self) -> None:
        if not self.compose_works:
            raise ChangeError("no such image")
        if self.led:
            self.own = None
            if self.kill_after == len(self.calls) + 1:
                self.calls.append("up, half")
                raise Killed
        self._do("up", lambda: setattr(self, "own", self.wanted))

    def serves(self, which: str) -> bool:
        return (self.own if which == "own" else self.second) is not None

    def is_healthy(self) -> bool:
        return self.own is not None

    def has_second(self) -> bool:
        return self.second is not None

    def start_second(self) -> None:
        assert self.second is None, "its name is taken"
        self._do("start second", lambda: setattr(self, "second", self.wanted))

    def stop_second(self) -> None:
        self._do("stop second", lambda: setattr(self, "second", None))

    def leads_to_second(self) -> bool:
        return self.led

    def lead_to_second(self) -> None:
        self._do("lead to second", lambda: setattr(self, "led", True))

    def lead_back(self) -> None:
        self._do("lead back", lambda: setattr(self, "led", False))

    def reconnect_clients(self) -> None:
        self._do("reconnect", lambda: None)


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


def replaced(host: FakeHost) -> bool:
    host.calls.clear()
    return Replacement(host, sleep=lambda _seconds: None).run()


def assert_at_rest(host: FakeHost) -> None:
    assert (host.own, host.second, host.led) == (host.wanted, None, False)


def test_new_connections_go_to_a_second_one_while_the_first_is_recreated(host: FakeHost) -> None:
    assert replaced(host)
    assert host.calls == CHANGES
    assert_at_rest(host)


def test_what_runs_as_described_is_left_alone(host: FakeHost) -> None:
    host.own = "new"
    assert not replaced(host)
    assert host.calls == []
    assert host.pulled


def test_what_is_not_there_or_does_not_serve_is_started_the_plain_way(host: FakeHost) -> None:
    host.own = None
    assert replaced(host)
    assert host.calls == ["up"]


@pytest.mark.parametrize("step", ["start second", "lead to second"])
def test_without_a_second_one_the_first_serves_on(host: FakeHost, step: str) -> None:
    host.fails[step] = "no room"
    with pytest.raises(ChangeError, match=r"no room\nThe nginx that ran before serves on"):
        replaced(host)
    assert (host.own, host.second, host.led) == ("old", None, False)


def test_the_second_one_serves_until_the_first_can_be_recreated(host: FakeHost) -> None:
    host.fails["up"] = "the port is taken"
    for _ in range(2):
        with pytest.raises(ChangeError, match=r"the port is taken\nThe second nginx serves on\..*site.yml finishes"):
            replaced(host)
        assert host.serving == "new"
    host.fails.clear()
    assert replaced(host)
    assert_at_rest(host)


def test_a_recreation_that_does_not_come_to_the_container_leaves_no_second_one(host: FakeHost) -> None:
    host.compose_works = False
    with pytest.raises(ChangeError, match=r"no such image\nnginx's own container serves, as it is"):
        replaced(host)
    assert (host.own, host.second, host.led) == ("old", None, False)


def test_clients_reconnect_only_when_they_were_led_to_the_second_one(host: FakeHost) -> None:
    """As after a kill before that."""
    host.own = host.second = "new"
    assert replaced(host)
    assert host.calls == ["lead back", "stop second"]


@pytest.mark.parametrize("moment", range(1, len(CHANGES) + 1))
def test_the_next_run_finishes_what_was_killed(host: FakeHost, moment: int) -> None:
    host.kill_after = moment
    with pytest.raises(Killed):
        replaced(host)
    host.kill_after = None
    replaced(host)
    assert_at_rest(host)


def test_rules_that_lead_to_nobody_go_before_anything_else(host: FakeHost) -> None:
    """As a host does that was restarted; a definition that has changed meanwhile is brought afterwards."""
    host.led, host.second = True, None
    assert replaced(host)
    assert host.calls[0] == "lead back"
    assert_at_rest(host)


RULES = """\
table ip tradingbot_nginx
delete table ip tradingbot_nginx
table ip tradingbot_nginx {
chain prerouting {
type nat hook prerouting priority dstnat - 5;
fib daddr type local tcp dport 443 dnat to 172.20.0.9:8443
ip daddr 10.0.0.1 tcp dport 8080 dnat to 172.20.0.9:8080
}
chain output {
type nat hook output priority -105;
ip daddr != 127.0.0.0/8 fib daddr type local tcp dport 443 dnat to 172.20.0.9:8443
ip daddr != 127.0.0.0/8 ip daddr 10.0.0.1 tcp dport 8080 dnat to 172.20.0.9:8080
}
}
"""
PUBLISHED = [("", 443, 8443), ("10.0.0.1", 8080, 8080)]


def test_rules_lead_the_published_ports_where_the_engine_would() -> None:
    assert nginx_engine.handover_rules(PUBLISHED, "172.20.0.9", loopback=False) == RULES
    everywhere = RULES.replace("ip daddr != 127.0.0.0/8 ", "")
    assert nginx_engine.handover_rules(PUBLISHED, "172.20.0.9", loopback=True) == everywhere
    assert nginx_engine.handover_rules([], "172.20.0.9", loopback=True) == ""


@pytest.mark.parametrize(("listed", "address"), [(RULES, "172.20.0.9"), (None, "")])
def test_where_rules_lead_is_read_from_them(monkeypatch: pytest.MonkeyPatch, listed: str | None, address: str) -> None:
    def output(*_command: str, **_: str) -> str:
        if listed is None:
            raise stack_network.LookError("nft: Error: No such file or directory")
        return listed

    monkeypatch.setattr(stack_network, "output", output)
    assert stack_network.handover() == address


DRY = " DRY-RUN MODE -  Container tradingbot-nginx-1 "


@pytest.mark.parametrize(
    ("said", "planned"),
    [
        ([" Recreate", " Recreated", " Starting", " Started"], "recreate"),
        ([" Creating", " Created", " Starting", " Started"], "start"),
        ([" Created", " Starting", " Started"], "start"),
        ([" Running"], ""),
        ([], ""),
    ],
)
def test_what_compose_would_do_is_read_from_its_words(said: list[str], planned: str) -> None:
    assert nginx_engine.planned_in("\n".join(DRY + word for word in said)) == planned


def test_workers_are_reached_behind_dockers_init_and_their_parent(tmp_path: Path) -> None:
    for pid, started in {10: "11", 11: "12 14 ", 12: "", 14: ""}.items():
        children = tmp_path / f"proc/{pid}/task/{pid}/children"
        children.parent.mkdir(parents=True)
        children.write_text(started)
    assert target.family(10, tmp_path) == [10, 11, 12, 14]
    assert target.family(99, tmp_path) == [99], "it has ended meanwhile"
