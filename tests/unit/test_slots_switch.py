"""A change of slots on a made-up host: the order of its steps, and what is left when one fails or is killed."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tradingbot.stack.plugins.module_utils import slots_record as records
from ansible_collections.tradingbot.stack.plugins.module_utils.slots_engine import State
from ansible_collections.tradingbot.stack.plugins.module_utils.slots_switch import READY, SMOKE, Change, Limits

OLD, NEW = "0.2.0-aaaaaaaa", "0.3.0-bbbbbbbb"
ADDRESSES = {"blue": "172.20.255.251", "green": "172.20.255.252"}
ANSWERS = {(method, path): status for method, path, _, status in SMOKE} | {("GET", READY): 200}


class Killed(BaseException):
    """The process ends here, as with SIGKILL: nothing of it runs any more."""


class FakeHost:
    """Containers that run what the record says when they are started, and a web server that does what it is told."""

    def __init__(self, layout: records.Layout) -> None:
        self.layout = layout
        self.calls: list[str] = []
        self.running: dict[str, str] = {}
        self.stopped: dict[str, str] = {}
        self.broken: set[str] = set()
        # Releases that do without Redis.
        self.degraded: set[str] = set()
        self.fails: dict[str, Exception] = {}
        self.kill_at: str | None = None
        self.kill_before = False
        self.chosen: str | None = "blue"
        self.proxy: str | None = "blue"
        self.open: list[int] = []
        self.restarts = 0
        self.oldest: str | None = "0001"
        self.on_call: Callable[[str], None] = lambda call: None
        # Told of each question whether a slot is ready; answers False for one that gets no answer in time.
        self.on_ready: Callable[[str], bool] = lambda slot: True

    def _call(self, call: str) -> None:
        if self.kill_before and call == self.kill_at:
            raise Killed
        self.calls.append(call)
        self.on_call(call)
        if call in self.fails:
            raise self.fails[call]

    def _done(self, call: str) -> None:
        if not self.kill_before and call == self.kill_at:
            raise Killed

    def up(self, *services: str) -> None:
        for service in services:
            self._call(f"up {service}")
            record = json.loads(self.layout.record_file.read_text())
            release = record["worker"] if service == "worker" else record["slots"][service.removeprefix("backend-")]
            assert f"  {service}:" in self.layout.compose_file.read_text(), "Compose knows no such service"
            self.running[service] = release
            self._done(f"up {service}")

    def remove(self, service: str) -> None:
        self._call(f"remove {service}")
        assert f"  {service}:" in self.layout.compose_file.read_text(), "Compose knows no such service"
        self.running.pop(service, None)
        self._done(f"remove {service}")

    def stop_container(self, service: str) -> None:
        self._call(f"stop container {service}")
        self.stopped[service] = self.running.pop(service)

    def start_container(self, service: str) -> None:
        self._call(f"start container {service}")
        self.running[service] = self.stopped.pop(service)

    def remove_container(self, service: str) -> None:
        self._call(f"remove container {service}")
        del self.stopped[service]

    def state(self, service: str) -> State | None:
        if service not in self.running:
            return None
        return State(True, self.restarts if self.running[service] in self.broken else 0, 1)

    def why(self, service: str) -> str:
        return f"the log of {service}"

    def request(self, slot: str, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        release = self.running.get(f"backend-{slot}")
        if release is None:
            return 0, "Connection refused"
        if path == READY and not self.on_ready(slot):
            return 0, "time-out"
        if release in self.broken:
            return 503, "not ready"
        redis = "does not answer" if release in self.degraded else "ok"
        return ANSWERS[method, path], json.dumps({"checks": {"postgresql": "ok", "redis": redis}})

    def worker_is_healthy(self) -> bool:
        return "worker" in self.running and f"worker {self.running['worker']}" not in self.broken

    def oldest_schema_user(self, release: str) -> str | None:
        return self.oldest

    def open_requests(self, slot: str) -> int:
        return self.open.pop(0) if self.open else 0

    def chosen_slot(self) -> str | None:
        return self.chosen

    def choose_slot(self, slot: str, tell: bool = True) -> None:
        assert self.chosen is not None, "there is no web server to tell"
        self._call(f"choose {slot}")
        self.chosen = slot
        self._done(f"write {slot}")
        if tell and self.proxy is not None:
            if self.proxy == "backend":
                raise records.SlotError("this web server knows no slots")
            self.proxy = slot
        self._done(f"choose {slot}")

    def images(self) -> list[str]:
        return ["tradingbot-backend:old", "tradingbot-backend:stale"]

    def remove_image(self, name: str) -> bool:
        self._call(f"remove image {name}")
        return True

    @property
    def serving(self) -> str | None:
        """The release that requests reach, if it answers."""
        release = self.running.get(f"backend-{self.proxy}")
        return None if release in self.broken else release


@pytest.fixture
def layout(tmp_path: Path) -> records.Layout:
    made = records.Layout(tmp_path, ADDRESSES)
    made.releases.mkdir(parents=True)
    for number, release in enumerate((OLD, NEW)):
        about = {"version": release[:5], "image": f"tradingbot-backend:{release}", "secrets": ["database_url"]}
        records.write_release(made, release, about | {"schema_head": f"000{number + 2}"})
    records.write_release(made, OLD, {"used": 1.0})
    return made


@pytest.fixture
def host(layout: records.Layout) -> FakeHost:
    """A host that serves OLD in blue."""
    records.write_record(layout, records.Record("blue", {"blue": OLD, "green": None}, OLD))
    made = FakeHost(layout)
    made.running = {"backend-blue": OLD, "worker": OLD}
    return made


def change(layout: records.Layout, host: FakeHost) -> Change:
    """Return a change whose clock runs by its pauses alone."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        time.sleep(0.002)  # lets the thread go on in which the worker is replaced

    return Change(layout, host, Limits(ready=10, settle=2.5, drain=20), clock=lambda: now[0], sleep=sleep)


def stored(layout: records.Layout) -> dict[str, Any]:
    return dict(json.loads(layout.record_file.read_text()))


def assert_only(release: str, slot: str, layout: records.Layout, host: FakeHost) -> None:
    """Hold record, containers and web server to one release in one slot, with nothing beside it."""
    other = "green" if slot == "blue" else "blue"
    assert stored(layout) == {"active": slot, "slots": {slot: release, other: None}, "worker": release}
    assert host.running == {f"backend-{slot}": release, "worker": release}
    assert host.proxy == host.chosen == slot


def test_a_new_release_is_started_chosen_and_only_then_is_the_old_one_stopped(
    layout: records.Layout, host: FakeHost
) -> None:
    assert change(layout, host).run(NEW)
    assert host.calls[:2] == ["up backend-green", "choose green"]
    assert set(host.calls[2:]) == {"up worker", "remove backend-blue"}
    assert host.calls[-1] == "remove backend-blue", "not before the worker is there"
    assert_only(NEW, "green", layout, host)


def test_the_old_slot_keeps_serving_until_its_requests_are_done(layout: records.Layout, host: FakeHost) -> None:
    host.open = [3] * 40
    work = change(layout, host)
    work.run(NEW)
    drain = next(step for step in work.steps if step["step"].startswith("wait for requests"))
    assert 8 <= drain["seconds"] <= 9


def test_requests_that_do_not_end_are_given_up(layout: records.Layout, host: FakeHost) -> None:
    host.open = [1] * 1000
    work = change(layout, host)
    work.run(NEW)
    drain = next(step for step in work.steps if step["step"].startswith("wait for requests"))
    assert 20 <= drain["seconds"] <= 21
    assert_only(NEW, "green", layout, host)


def test_what_runs_already_is_left_alone(layout: records.Layout, host: FakeHost) -> None:
    assert not change(layout, host).run(OLD)
    assert_only(OLD, "blue", layout, host)


def test_what_is_down_is_started(layout: records.Layout, host: FakeHost) -> None:
    host.running.clear()
    assert change(layout, host).run(OLD)
    assert_only(OLD, "blue", layout, host)


def test_a_restart_goes_through_the_other_slot(layout: records.Layout, host: FakeHost) -> None:
    assert change(layout, host).run(OLD, force=True)
    assert "remove worker" in host.calls, "a worker of the same release is made anew"
    assert_only(OLD, "green", layout, host)


def test_a_release_that_never_gets_ready_leaves_the_old_one(layout: records.Layout, host: FakeHost) -> None:
    host.broken.add(NEW)
    with pytest.raises(records.SlotError, match=f"within 10 s: 503 not ready(?s:.)*go to {OLD} as before") as refusal:
        change(layout, host).run(NEW)
    assert "the log of backend-green" in str(refusal.value)
    assert not any(call.startswith("choose") for call in host.calls)
    assert_only(OLD, "blue", layout, host)


def test_a_release_that_cannot_reach_redis_leaves_the_old_one_which_can(layout: records.Layout, host: FakeHost) -> None:
    host.degraded.add(NEW)
    with pytest.raises(records.SlotError, match=f"cannot use redis: (?s:.)*go to {OLD} as before"):
        change(layout, host).run(NEW)
    assert_only(OLD, "blue", layout, host)


def test_redis_that_goes_during_a_change_is_missing_to_both(layout: records.Layout, host: FakeHost) -> None:
    host.on_call = lambda call: host.degraded.update({OLD, NEW} if call == "up backend-green" else ())
    assert change(layout, host).run(NEW)
    assert_only(NEW, "green", layout, host)


def test_one_late_answer_of_the_old_slot_is_no_leave_for_the_new_one(layout: records.Layout, host: FakeHost) -> None:
    host.degraded.add(NEW)
    asked = itertools.count()
    host.on_ready = lambda slot: slot == "green" or next(asked) % 2 == 1
    with pytest.raises(records.SlotError, match="cannot use redis"):
        change(layout, host).run(NEW)
    assert_only(OLD, "blue", layout, host)


def test_redis_that_is_a_little_late_is_waited_for(layout: records.Layout, host: FakeHost) -> None:
    host.degraded.add(NEW)
    asked = itertools.count()

    def comes_back(slot: str) -> bool:
        if slot == "green" and next(asked) == 10:
            host.degraded.clear()
        return True

    host.on_ready = comes_back
    assert change(layout, host).run(NEW)
    assert next(asked) > 10
    assert_only(NEW, "green", layout, host)


@pytest.mark.parametrize("force", [False, True], ids=["deploy", "restart"])
@pytest.mark.parametrize("serves", [True, False], ids=["degraded", "down"])
def test_without_redis_a_change_is_made_all_the_same(
    layout: records.Layout, host: FakeHost, force: bool, serves: bool
) -> None:
    """A restart and another release are what people try; and a release of before fails without Redis."""
    host.degraded |= {OLD, NEW}
    wanted = OLD if force else NEW
    if not serves:
        host.running.pop("backend-blue")
    assert change(layout, host).run(wanted, force=force)
    assert_only(wanted, "green", layout, host)


def test_the_first_start_needs_redis(layout: records.Layout, host: FakeHost) -> None:
    records.write_record(layout, records.Record(None, {"blue": None, "green": None}, None))
    host.running.clear()
    host.degraded.add(NEW)
    with pytest.raises(records.SlotError, match="cannot use redis"):
        change(layout, host).run(NEW)
    assert host.running == {}


def test_a_release_that_falls_over_again_and_again_is_not_waited_for(layout: records.Layout, host: FakeHost) -> None:
    host.broken.add(NEW)
    host.restarts = 3
    work = change(layout, host)
    with pytest.raises(records.SlotError, match="ended and been restarted 3 times"):
        work.run(NEW)
    assert work.steps[0]["seconds"] < 1
    assert_only(OLD, "blue", layout, host)


def test_a_release_that_fails_the_smoke_requests_is_removed(
    layout: records.Layout, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANSWERS, ("GET", "/api/v1/signals"), 500)
    with pytest.raises(records.SlotError, match="answers GET /api/v1/signals with 500 and not 401"):
        change(layout, host).run(NEW)
    assert_only(OLD, "blue", layout, host)


@pytest.mark.parametrize("error", [records.SlotError("no"), OSError("no space"), KeyError("State")])
@pytest.mark.parametrize("failing", ["choose green", "up worker", "remove backend-blue"])
def test_a_failure_after_the_start_leads_back(
    layout: records.Layout, host: FakeHost, failing: str, error: Exception
) -> None:
    host.fails[failing] = error

    def only_once(call: str) -> None:
        if call == failing and host.calls.count(call) > 1:
            host.fails.pop(call, None)

    host.on_call = only_once
    with pytest.raises(records.SlotError, match=f"Requests go to {OLD} again"):
        change(layout, host).run(NEW)
    assert_only(OLD, "blue", layout, host)


def test_a_release_that_dies_when_it_gets_requests_is_taken_back_while_the_old_one_still_runs(
    layout: records.Layout, host: FakeHost
) -> None:
    def die(call: str) -> None:
        if call == "up worker" and host.running["backend-blue"]:
            host.broken.add(NEW)

    host.on_call = die
    with pytest.raises(records.SlotError, match=f"stopped being ready(?s:.)*Requests go to {OLD} again"):
        change(layout, host).run(NEW)
    assert "remove backend-blue" not in host.calls
    assert_only(OLD, "blue", layout, host)


def test_requests_go_back_before_anything_else_is_waited_for(layout: records.Layout, host: FakeHost) -> None:
    """A worker that takes its time does not keep them on a slot that is dead."""
    chosen = threading.Event()

    def die(call: str) -> None:
        if call == "up worker" and not chosen.is_set():
            host.broken.add(NEW)
            assert chosen.wait(timeout=10), "the web server is told while the worker is still being replaced"
        if call == "choose blue":
            chosen.set()

    host.on_call = die
    with pytest.raises(records.SlotError, match="stopped being ready"):
        change(layout, host).run(NEW)
    assert_only(OLD, "blue", layout, host)


def test_a_worker_that_does_not_come_up_leads_back(layout: records.Layout, host: FakeHost) -> None:
    host.broken.add(f"worker {NEW}")
    with pytest.raises(records.SlotError, match="the worker does not get healthy"):
        change(layout, host).run(NEW)
    assert_only(OLD, "blue", layout, host)


CALLS = ["up backend-green", "choose green", "write green", "up worker", "remove backend-blue"]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_a_killed_change_serves_on_and_the_next_one_finishes_it(
    layout: records.Layout, host: FakeHost, call: str, before: bool
) -> None:
    host.kill_at, host.kill_before = call, before and not call.startswith("write")
    with pytest.raises(Killed):
        change(layout, host).run(NEW)
    assert host.serving in (OLD, NEW), "somebody answers"
    host.kill_at = None
    work = change(layout, host)
    work.settle()
    assert host.serving == work.record.release, "before the other slot is stopped, and after"
    assert len([name for name in host.running if name != "worker"]) == 1
    work.run(NEW)
    assert host.serving == NEW
    assert stored(layout)["worker"] == NEW
    assert set(host.running.values()) == {NEW}


def test_an_interrupted_switch_to_a_slot_that_has_died_goes_back_to_the_other(
    layout: records.Layout, host: FakeHost
) -> None:
    host.kill_at, host.kill_before = "choose green", True
    with pytest.raises(Killed):
        change(layout, host).run(NEW)
    host.kill_at = None
    host.broken.add(NEW)
    work = change(layout, host)
    work.settle()
    assert_only(OLD, "blue", layout, host)


def test_the_first_release_starts_in_the_first_slot(layout: records.Layout) -> None:
    host = FakeHost(layout)
    host.chosen = host.proxy = None
    assert change(layout, host).run(OLD)
    assert stored(layout) == {"active": "blue", "slots": {"blue": OLD, "green": None}, "worker": OLD}
    assert host.running == {"backend-blue": OLD, "worker": OLD}


@pytest.fixture
def earlier(layout: records.Layout) -> FakeHost:
    """A host of the layout before slots: its web server sends requests to the service `backend`."""
    host = FakeHost(layout)
    host.running = {"backend": "0.1", "worker": "0.1"}
    host.chosen, host.proxy = "", "backend"
    return host


def test_an_earlier_layout_serves_until_the_web_server_knows_the_slots(
    layout: records.Layout, earlier: FakeHost
) -> None:
    work = change(layout, earlier)
    work.settle()
    work.run(OLD)
    assert earlier.running == {"backend": "0.1", "backend-blue": OLD, "worker": OLD}
    change(layout, earlier).settle()
    assert "backend" in earlier.running
    earlier.proxy = "blue"  # the web server's role has run
    change(layout, earlier).settle()
    assert_only(OLD, "blue", layout, earlier)


def test_an_earlier_layout_serves_on_when_the_first_release_fails(layout: records.Layout, earlier: FakeHost) -> None:
    earlier.broken.add(OLD)
    with pytest.raises(records.SlotError, match="was not ready"):
        change(layout, earlier).run(OLD)
    assert earlier.running == {"backend": "0.1", "worker": "0.1"}


@pytest.mark.parametrize("broken", [True, False])
def test_an_earlier_layout_without_a_web_server_makes_room_and_comes_back(
    one_slot: records.Layout, earlier: FakeHost, broken: bool
) -> None:
    """It has the port that the slot needs."""
    earlier.chosen = earlier.proxy = None
    if broken:
        earlier.broken.add(OLD)
        with pytest.raises(records.SlotError, match="was not ready"):
            change(one_slot, earlier).run(OLD)
        assert earlier.running == {"backend": "0.1", "worker": "0.1"}
    else:
        change(one_slot, earlier).run(OLD)
        assert earlier.running == {"backend-blue": OLD, "worker": OLD}


def test_a_host_on_which_nothing_gets_ready_takes_another_release(layout: records.Layout, host: FakeHost) -> None:
    records.write_release(layout, "0.4.0-cccccccc", {"version": "0.4.0", "image": "i", "secrets": []})
    records.write_record(layout, records.Record("blue", {"blue": OLD, "green": NEW}, OLD))
    host.running["backend-green"] = NEW
    host.broken |= {OLD, NEW}
    work = change(layout, host)
    work.settle()
    work.run("0.4.0-cccccccc")
    assert_only("0.4.0-cccccccc", "green", layout, host)


def test_a_choice_that_is_lost_is_made_again(layout: records.Layout, host: FakeHost) -> None:
    host.chosen = ""
    change(layout, host).settle()
    assert_only(OLD, "blue", layout, host)


def test_a_host_that_loses_its_web_server_moves_to_the_slot_that_is_left(
    layout: records.Layout, host: FakeHost
) -> None:
    records.write_record(layout, records.Record("green", {"blue": None, "green": OLD}, OLD))
    host.running = {"backend-green": OLD, "worker": OLD}
    host.chosen = host.proxy = None
    left = records.Layout(layout.project_dir, {"blue": ADDRESSES["blue"]}, ("127.0.0.1:8001:8001",))
    work = change(left, host)
    work.settle()
    work.run(OLD)
    assert host.running == {"backend-blue": OLD, "worker": OLD}
    assert stored(left)["active"] == "blue"


def test_a_first_release_that_fails_leaves_nothing_behind(layout: records.Layout) -> None:
    host = FakeHost(layout)
    host.broken.add(OLD)
    with pytest.raises(records.SlotError, match="was not ready"):
        change(layout, host).run(OLD)
    assert host.running == {}
    assert stored(layout) == {"active": None, "slots": {"blue": None, "green": None}, "worker": None}


@pytest.mark.parametrize("call", ["up backend-blue", "up worker"])
def test_a_killed_first_start_is_begun_anew(layout: records.Layout, call: str) -> None:
    host = FakeHost(layout)
    host.chosen, host.kill_at = None, call
    with pytest.raises(Killed):
        change(layout, host).run(OLD)
    host.kill_at = None
    work = change(layout, host)
    work.settle()
    work.run(OLD)
    assert host.running == {"backend-blue": OLD, "worker": OLD}


@pytest.fixture
def one_slot(layout: records.Layout) -> records.Layout:
    """A host without a web server: one slot, with a published port."""
    return records.Layout(layout.project_dir, {"blue": ADDRESSES["blue"]}, ("127.0.0.1:8001:8001",))


def test_with_one_slot_the_release_is_replaced_in_place(one_slot: records.Layout, host: FakeHost) -> None:
    host.chosen = host.proxy = None
    records.write_record(one_slot, records.Record("blue", {"blue": OLD}, OLD))
    assert change(one_slot, host).run(NEW)
    assert host.running == {"backend-blue": NEW, "worker": NEW}
    assert "ports" in one_slot.compose_file.read_text()


def test_with_one_slot_a_failure_puts_the_release_back(one_slot: records.Layout, host: FakeHost) -> None:
    host.chosen = host.proxy = None
    host.broken.add(NEW)
    records.write_record(one_slot, records.Record("blue", {"blue": OLD}, OLD))
    with pytest.raises(records.SlotError, match="was not ready"):
        change(one_slot, host).run(NEW)
    assert host.running == {"backend-blue": OLD, "worker": OLD}


def test_with_one_slot_a_killed_change_is_put_back_to_what_ran(one_slot: records.Layout, host: FakeHost) -> None:
    host.chosen = host.proxy = None
    host.broken.add(NEW)
    host.kill_at = "up backend-blue"
    records.write_record(one_slot, records.Record("blue", {"blue": OLD}, OLD))
    with pytest.raises(Killed):
        change(one_slot, host).run(NEW)
    host.kill_at = None
    work = change(one_slot, host)
    work.settle()
    with pytest.raises(records.SlotError, match="was not ready"):
        work.run(NEW)
    assert host.running == {"backend-blue": OLD, "worker": OLD}


def test_a_release_that_the_schema_has_left_behind_is_refused(layout: records.Layout, host: FakeHost) -> None:
    host.oldest = "0003"
    with pytest.raises(records.SlotError, match=r"up to revision 0002.*needs a release that knows 0003"):
        change(layout, host).refuse_newer_schema(OLD)
    change(layout, host).refuse_newer_schema(NEW)


def test_a_release_whose_schema_is_not_known_is_refused(layout: records.Layout, host: FakeHost) -> None:
    records.write_release(layout, "0.1", {"version": "0.1", "image": "i", "secrets": [], "used": 0.5})
    with pytest.raises(records.SlotError, match="deploy that version anew"):
        change(layout, host).refuse_newer_schema("0.1")


def test_old_releases_and_their_images_go_and_those_in_use_stay(layout: records.Layout, host: FakeHost) -> None:
    for number in range(6):
        about: dict[str, Any] = {"version": "0.1", "image": f"i{number}", "secrets": [], "used": 10.0 + number}
        about["source"] = f"registry.example/bot:{number}"
        records.write_release(layout, f"r{number}", about)
    (layout.releases / "refused.yaml").write_text("services: {}\n")
    gone = change(layout, host).prune()
    kept = {item["release"] for item in records.all_releases(layout)}
    assert kept == {"r5", "r4", "r3", "r2", "r1", OLD}, "the newest five, and the one that runs"
    ours = {"tradingbot-backend:old", "tradingbot-backend:stale"}
    assert set(gone) == {"r0", NEW, "registry.example/bot:0"} | ours
    assert not (layout.releases / "refused.yaml").exists()
