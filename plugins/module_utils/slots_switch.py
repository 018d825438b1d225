# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The change from one release of the backend to another, in two slots behind the web server.

The new slot is started and asked until it is ready. Then the web server is told to use it; what the old slot still has
in hand is waited for; the worker is replaced; and only then is the old slot stopped, so that clients of WebSockets are
told to come back (close code 1012, RFC 6455 section 7.4 and the IANA registry of close codes).

Whatever goes wrong before the web server is told leaves the old slot as it was. Whatever goes wrong later leads back.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from ansible_collections.tradingbot.stack.plugins.module_utils import slots_record as records
from ansible_collections.tradingbot.stack.plugins.module_utils.host_change import ChangeError, Steps
from ansible_collections.tradingbot.stack.plugins.module_utils.slots_engine import State, service_of
from ansible_collections.tradingbot.stack.plugins.module_utils.slots_record import Layout, SlotError

READY = "/api/v1/health/ready"
# What a slot must answer before it gets requests: the process, its refusal of strangers, and a look into the database.
UNKNOWN_WEBHOOK = "/api/v1/webhooks/tradingview/tbw_" + "0" * 43
SMOKE: tuple[tuple[str, str, str | None, int], ...] = (
    ("GET", "/api/v1/health", None, 200),
    ("GET", "/api/v1/signals", None, 401),
    ("POST", UNKNOWN_WEBHOOK, json.dumps({"ticker": "BTCUSDT", "action": "buy"}), 404),
)
# What a change may meet: what it says itself, a full disk, an answer of Docker's that is none. All of it leads back.
FAILURES = (ChangeError, OSError, ValueError, LookupError, subprocess.SubprocessError)
# The service of the layout before slots.
EARLIER = "backend"
# Returns the parts that a new slot may do without; None: whatever it can serve without.
Allowed = Callable[[], frozenset[str] | None]
# A container that has fallen over this often will not become ready.
MOST_RESTARTS = 3
# Seconds that a slot may take to reach what the one that serves can reach (Redis), once it answers.
DEGRADED_SECONDS = 8


def lacking(answer: str) -> frozenset[str]:
    """Return the parts that a slot says it does without, from its answer to READY."""
    try:
        checks = json.loads(answer)["checks"]
        return frozenset(name for name, state in checks.items() if state != "ok")
    except (ValueError, LookupError, TypeError, AttributeError):
        return frozenset()


class Host(Protocol):
    """What a change does to a host; see `slots_engine.Engine`."""

    def up(self, *services: str) -> None: ...
    def remove(self, service: str) -> None: ...
    def stop_container(self, service: str) -> None: ...
    def start_container(self, service: str) -> None: ...
    def remove_container(self, service: str) -> None: ...
    def state(self, service: str) -> State | None: ...
    def why(self, service: str) -> str: ...
    def request(self, slot: str, method: str, path: str, body: str | None = None) -> tuple[int, str]: ...
    def worker_is_healthy(self) -> bool: ...
    def oldest_schema_user(self, release: str) -> str | None: ...
    def open_requests(self, slot: str) -> int: ...
    def chosen_slot(self) -> str | None: ...
    def choose_slot(self, slot: str, tell: bool = True) -> None: ...
    def images(self) -> list[str]: ...
    def remove_image(self, name: str) -> bool: ...


@dataclass(frozen=True)
class Limits:
    """Seconds, and how many releases are kept.

    `ready`: until a new slot, or the worker, is up; `settle`: that the web server's old processes keep idle connections
    open (nginx's keepalive_min_timeout), and that the new slot is watched; `drain`: until requests in hand are given
    up.
    """

    ready: float = 120
    settle: float = 2.5
    drain: float = 20
    keep: int = 5


class Change:
    """A change of one host's slots. `steps` tells what was done so far, and how long each took."""

    def __init__(
        self,
        layout: Layout,
        host: Host,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._layout = layout
        self._host = host
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self.record = records.read_record(layout)
        self.steps = Steps(clock)
        self._saving = threading.Lock()

    # The whole change.

    def settle(self) -> None:
        """Finish, or take back, what an earlier change left half done; a slot that cannot serve waits for a release."""
        record = self.record
        if record.active is None:
            if record.leftovers() or record.worker:
                with self.steps.step("remove an unfinished first start"):
                    self._drop(record.leftovers())
                    self._set_worker(None)
            return
        records.write_record(self._layout, record)
        if self._host.state(EARLIER) is not None:
            # Fails as long as the web server knows no slots, and then it still needs that service.
            with contextlib.suppress(*FAILURES), self.steps.step("remove the service that had no slots"):
                self._choose(record.active)
                self._host.stop_container(EARLIER)
                self._host.remove_container(EARLIER)
        if not record.leftovers() and self._host.chosen_slot() in (None, record.active):
            return
        with self.steps.step("finish an interrupted change"):
            self._serve_from_one_that_is_ready()
            self._drain(record.leftovers())
            self._drop(record.leftovers())
            if record.worker != record.release:
                self._hand_over(record.release)

    def run(self, wanted: str, force: bool = False) -> bool:
        """Bring the release *wanted* to where requests and signals arrive; tell whether anything changed.

        With *force* a release that runs already is started anew. Raises SlotError when that fails; the release that ran
        before runs on.
        """
        records.read_release(self._layout, wanted)
        laid_out = self.record.active in self._layout.addresses
        if self.record.release == wanted and self.record.worker == wanted and laid_out and not force:
            return self._keep_up()
        (self._first if self.record.active is None else self._next)(wanted)
        return True

    def _keep_up(self) -> bool:
        changed = records.write_record(self._layout, self.record)
        services = (service_of(str(self.record.active)), "worker")
        before = [self._host.state(service) for service in services]
        self._host.up(*services)
        changed = changed or before != [self._host.state(service) for service in services]
        if changed:
            with self.steps.step("start what was down"):
                self._wait_until_ready(str(self.record.active))
                self._wait_for_worker()
        return changed

    def _first(self, wanted: str) -> None:
        slot = next(iter(self._layout.addresses))
        # A service of an earlier layout, which had no slots. Behind a web server it serves until that knows of the
        # slots, by its own role, and the next change removes it; else it has the port that the slot needs.
        earlier = self._host.state(EARLIER) is not None
        in_the_way = earlier and self._host.chosen_slot() is None
        if in_the_way:
            self._host.stop_container(EARLIER)
        try:
            self._start(slot, wanted, allowed=frozenset)
            with self.steps.step("start the worker"):
                self._hand_over(wanted)
        except FAILURES:
            self._drop([slot])
            self._set_worker(None)
            if in_the_way:
                self._host.start_container(EARLIER)
            raise
        self.record.active = slot
        self._save()
        if in_the_way:
            self._host.remove_container(EARLIER)
        if self._host.chosen_slot() is not None:
            self._host.choose_slot(slot, tell=not earlier)

    def _next(self, wanted: str) -> None:
        old = str(self.record.active)
        idle = [slot for slot in self._layout.addresses if slot != old]
        if idle:
            self._beside(old, idle[0], wanted)
        else:
            self._in_place(old, wanted)

    def _beside(self, old: str, new: str, wanted: str) -> None:
        before = str(self.record.release)
        try:
            self._start(new, wanted, allowed=lambda: self._lacks(old))
        except FAILURES as error:
            with self.steps.step(f"remove the new slot {new}"):
                self._drop([new])
            raise SlotError(f"{error}\nRequests go to {before} as before.") from error
        worker: Future[None] | None = None
        try:
            with self.steps.step(f"send requests to {new}"):
                # The record first: a run that is killed here is finished by the next one, for the slot is ready.
                self.record.active = new
                self._save()
                self._choose(new)
            worker = self._beside_this(self._hand_over, wanted)
            with self.steps.step(f"wait for requests in {old}, and replace the worker"):
                self._drain([old], watched=new, worker=worker)
            with self.steps.step(f"stop {old}"):
                self._host.remove(service_of(old))
            with self.steps.step("verify"):
                self._verify(new)
        except FAILURES as error:
            raise SlotError(f"{error}\n{self._go_back(old, new, before, worker)}") from error
        self.record.slots[old] = None
        self._save()

    def _in_place(self, slot: str, wanted: str) -> None:
        # After a kill half way the worker still has the release that ran before.
        before = str(self.record.worker or self.record.release)
        lacks = self._lacks(slot)
        try:
            self._start(slot, wanted, allowed=lambda: lacks, force=before == wanted)
            self._hand_over(wanted)
        except FAILURES:
            with self.steps.step(f"put back {before}"):
                self.record.slots[slot] = before
                self._save()
                self._host.up(service_of(slot))
                self._wait_until_ready(slot)
                self._hand_over(before)
            raise

    def _go_back(self, old: str, new: str, before: str, worker: Future[None] | None) -> str:
        """Return what was done to serve from *old* again. Requests come first: they fail until they are sent back."""
        try:
            with self.steps.step(f"switch back to {old}"):
                self.record.active = old
                self._save()
                if self._host.request(old, "GET", READY)[0] != 200:
                    self._host.up(service_of(old))
                    self._wait_until_ready(old)
                self._choose(old)
            with self.steps.step(f"put back the worker, and remove the new slot {new}"):
                if worker is not None:
                    worker.exception()  # waits; what went wrong with the new worker matters no more
                    self._hand_over(before)
                self._drain([new])
                self._drop([new])
        except FAILURES as error:
            if worker is not None:
                worker.exception()
            return (
                f"Going back to {before} failed, too: {error}\nDeploy another version: it gets the slot that is free."
                " `sudo tradingbot health` on the host shows what else does not answer."
            )
        return f"Requests go to {before} again."

    # Its steps.

    @staticmethod
    def _beside_this(work: Callable[[str], None], argument: str) -> Future[None]:
        """Do *work* in a thread that nothing but its result is waited for."""
        pool = ThreadPoolExecutor(max_workers=1)
        future = pool.submit(work, argument)
        pool.shutdown(wait=False)
        return future

    def _choose(self, slot: str) -> None:
        if self._host.chosen_slot() is not None:
            self._host.choose_slot(slot)

    def _save(self) -> None:
        # Two threads save: what is written last must hold the changes of both.
        with self._saving:
            records.write_record(self._layout, self.record)

    def _lacks(self, slot: str) -> frozenset[str] | None:
        """Return the parts that a slot does without, Redis for one; None when it does not serve."""
        lacks = None
        # One answer may be late.
        for _ in range(2):
            status, text = self._host.request(slot, "GET", READY)
            lacks = lacking(text) if status == 200 else None
            if lacks is not None and not lacks:
                break
            self._sleep(0.2)
        return lacks

    def _start(self, slot: str, release: str, allowed: Allowed, force: bool = False) -> None:
        """Start a slot, which may do without the parts that *allowed* returns."""
        with self.steps.step(f"start {slot} with {release}"):
            self.record.slots[slot] = release
            self._save()
            if force:
                self._host.remove(service_of(slot))
            self._host.up(service_of(slot))
            self._wait_until_ready(slot, allowed)
        with self.steps.step(f"ask {slot}"):
            for method, path, body, expected in SMOKE:
                status, text = self._host.request(slot, method, path, body)
                if status != expected:
                    raise SlotError(f"{release} answers {method} {path} with {status} and not {expected}: {text[:300]}")

    def _wait_until_ready(self, slot: str, allowed: Allowed = lambda: None) -> None:
        service, began = service_of(slot), self._clock()
        degraded_since: float | None = None
        while True:
            status, text = self._host.request(slot, "GET", READY)
            missing = lacking(text) if status == 200 else frozenset()
            # The one that serves is asked when it matters: Redis may go at any moment, and then from both.
            if status == 200 and (not missing or (may := allowed()) is None or missing <= may):
                return
            state = self._host.state(service)
            now = self._clock()
            if not missing:
                degraded_since = None
            elif degraded_since is None:
                degraded_since = now
            if degraded_since is not None and now - degraded_since > DEGRADED_SECONDS:
                why = f"cannot use {', '.join(sorted(missing))}: {text[:300]}"
            elif now - began > self._limits.ready:
                answer = f"{status or ''} {text[:300]}".strip()
                why = f"was not ready within {self._limits.ready:.0f} s: {answer}"
            elif state is not None and state.restarts >= MOST_RESTARTS:
                why = f"has ended and been restarted {state.restarts} times"
            else:
                self._sleep(0.2)
                continue
            raise SlotError(f"{service} {why}.\n{self._host.why(service)}")

    def _drain(self, slots: list[str], watched: str | None = None, worker: Future[None] | None = None) -> None:
        """Wait until the web server has no request in these slots and *worker* is done, while *watched* stays ready."""
        began = self._clock()
        while True:
            waited = self._clock() - began
            if watched is not None:
                self._still_serves(watched)
            open_ = sum(self._host.open_requests(slot) for slot in slots)
            drained = waited >= self._limits.settle and (open_ == 0 or waited >= self._limits.drain)
            if drained and (worker is None or worker.done()):
                break
            self._sleep(0.2)
        if worker is not None:
            worker.result()

    def _still_serves(self, slot: str) -> None:
        """Allow for one answer that is late; raises SlotError when two in a row are missing."""
        for _ in range(2):
            status, text = self._host.request(slot, "GET", READY)
            if status == 200:
                return
            self._sleep(0.2)
        service = service_of(slot)
        raise SlotError(
            f"{service} stopped being ready when it got the requests ({status}: {text[:300]}).\n"
            + self._host.why(service)
        )

    def _verify(self, slot: str) -> None:
        self._still_serves(slot)
        state = self._host.state(service_of(slot))
        if state is None or not state.running or state.restarts > 0:
            raise SlotError(f"{service_of(slot)} does not stay up.\n{self._host.why(service_of(slot))}")

    def _hand_over(self, release: str | None) -> None:
        """Stop the worker, which finishes the signal in hand, and start it with another release."""
        anew = self.record.worker == release
        self._set_worker(release)
        if release is None:
            return
        if anew:
            self._host.remove("worker")
        self._host.up("worker")
        self._wait_for_worker()

    def _set_worker(self, release: str | None) -> None:
        if release is None and self.record.worker is not None:
            self._host.remove("worker")
        self.record.worker = release
        self._save()

    def _wait_for_worker(self) -> None:
        began = self._clock()
        while not self._host.worker_is_healthy():
            state = self._host.state("worker")
            fell_over = state is not None and state.restarts >= MOST_RESTARTS
            if fell_over or self._clock() - began > self._limits.ready:
                raise SlotError(f"the worker does not get healthy.\n{self._host.why('worker')}")
            self._sleep(0.2)

    def _drop(self, slots: list[str]) -> None:
        for slot in slots:
            if self.record.slots[slot]:
                self._host.remove(service_of(slot))
                self.record.slots[slot] = None
        self._save()

    def _serve_from_one_that_is_ready(self) -> None:
        """Choose the slot of the record, or the other one when only that gets ready; nothing when none does."""
        first = str(self.record.active)
        candidates = [first, *self.record.leftovers()]
        for slot in candidates:
            try:
                self._host.up(service_of(slot))
                self._wait_until_ready(slot)
            except FAILURES:
                continue
            self.record.active = slot
            self._save()
            # Also when the choice is written already: the web server may not have been told before the kill.
            self._choose(slot)
            return

    # Going back, and what is kept.

    def refuse_newer_schema(self, release: str) -> None:
        """Raise SlotError when the database's schema has moved past what a release can live with."""
        head = records.read_release(self._layout, release).get("schema_head")
        if head is None:
            raise SlotError(
                f"it is not known which schema {release} needs, and going back could break it: deploy that version anew"
            )
        oldest = self._host.oldest_schema_user(release)
        if oldest is not None and head < oldest:
            raise SlotError(
                f"{release} knows the schema up to revision {head}, and the database has been contracted since: it"
                f" needs a release that knows {oldest} or later. Deploy such a release, or restore a backup from before"
                " the contraction (docs/migrations.md)"
            )

    def prune(self) -> list[str]:
        """Forget the releases past the newest, and remove the images that no kept release runs; return their names."""
        in_use = {*self.record.slots.values(), self.record.worker}
        releases = records.all_releases(self._layout)
        stay = {item["release"] for item in records.kept(self._layout)[: self._limits.keep]} | in_use
        gone = [item for item in releases if item["release"] not in stay]
        # A release that was refused has a description, and nothing is known of it.
        for path in self._layout.releases.glob("*.yaml"):
            if path.stem not in stay:
                path.unlink()
        for item in gone:
            (self._layout.releases / f"{item['release']}.json").unlink(missing_ok=True)
        # A pulled image has the name that it was pulled by, too.
        wanted = {item.get(name) for item in releases if item not in gone for name in ("image", "source")}
        known = {*self._host.images(), *(item["source"] for item in gone if "source" in item)}
        images = [name for name in sorted(known) if name not in wanted and self._host.remove_image(name)]
        return [item["release"] for item in gone] + images
