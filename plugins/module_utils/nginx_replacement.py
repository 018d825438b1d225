# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Replaces nginx's container without refusing a connection.

A second nginx is started from the new definition, and new connections are led to it. The first one finishes what it has
in hand, and is recreated by Compose; then new connections go there, and the second one finishes what it has.

What is left by a run that was killed says where it was: while connections are led to the second nginx, the first one
may be away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from ansible_collections.tradingbot.stack.plugins.module_utils.host_change import ChangeError, Steps

# Seconds in which a connection that was led one way is taken there, before that nginx stops to listen.
SETTLE = 1.0


class Host(Protocol):
    """What a replacement does to a host; see `nginx_engine.Engine`."""

    def fetch_image(self) -> None: ...
    def planned(self) -> str: ...
    def up(self) -> None: ...
    def serves(self, which: str) -> bool: ...
    def is_healthy(self) -> bool: ...
    def has_second(self) -> bool: ...
    def start_second(self) -> None: ...
    def stop_second(self) -> None: ...
    def leads_to_second(self) -> bool: ...
    def lead_to_second(self) -> None: ...
    def lead_back(self) -> None: ...
    def reconnect_clients(self) -> None: ...


class Replacement:
    """Brings nginx to its definition. `steps` tells what was done so far, and how long each took."""

    def __init__(self, host: Host, sleep: Callable[[float], None] = time.sleep) -> None:
        self._host = host
        self._sleep = sleep
        self.steps = Steps()

    def settle(self) -> None:
        """Finish what an earlier run left half done, so that all connections reach the service's own container."""
        if not self._host.leads_to_second() and not self._host.has_second():
            return
        with self.steps.step("finish an interrupted replacement of nginx"):
            if not self._host.serves("second"):
                self._host.lead_back()
            if self._host.leads_to_second() and not self._host.serves("own"):
                self._up()
            self._retire_second()

    def run(self) -> bool:
        """Bring nginx to its definition; return whether anything changed. Raises ChangeError."""
        self.settle()
        self._host.fetch_image()
        planned = self._host.planned()
        if not planned and self._host.is_healthy():
            return bool(self.steps)
        if planned == "recreate" and self._host.serves("own"):
            self._replace()
        else:
            with self.steps.step("start nginx"):
                self._host.up()
        return True

    def _replace(self) -> None:
        try:
            with self.steps.step("start a second nginx"):
                self._host.start_second()
            with self.steps.step("lead new connections to it"):
                self._host.lead_to_second()
                self._sleep(SETTLE)
        except ChangeError as error:
            self._host.lead_back()
            self._host.stop_second()
            raise ChangeError(f"{error}\nThe nginx that ran before serves on.") from error
        self._host.reconnect_clients()
        with self.steps.step("recreate nginx"):
            self._up()
        with self.steps.step("lead connections back, and remove the second nginx"):
            self._retire_second()

    def _up(self) -> None:
        """Recreate or start nginx while the second one serves."""
        try:
            self._host.up()
        except ChangeError as error:
            if self._host.is_healthy():
                # As when Compose has failed before it came to the container.
                self._retire_second()
                raise ChangeError(f"{error}\nnginx's own container serves, as it is.") from error
            raise ChangeError(
                f"{error}\nThe second nginx serves on. Deploys and `tradingbot maintenance` reach it."
                " Once the cause is mended, site.yml finishes the replacement."
            ) from error

    def _retire_second(self) -> None:
        led = self._host.leads_to_second()
        self._host.lead_back()
        if led and self._host.serves("second"):
            self._sleep(SETTLE)
            self._host.reconnect_clients()
        self._host.stop_second()
