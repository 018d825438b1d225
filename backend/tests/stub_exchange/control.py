"""Commands a stub exchange that runs in another process."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from tests.stub_exchange.faults import Fault

BACKEND = Path(__file__).resolve().parents[2]


class Control:
    """A client of /_stub. It blocks: not for a stub in the same event loop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=f"{url}/_stub", timeout=10, trust_env=False)

    def add_fault(self, fault: Fault) -> None:
        """Makes the exchange misbehave."""
        self._post("/faults", asdict(fault))

    def clear_faults(self) -> None:
        """Makes the exchange behave."""
        self._http.delete("/faults").raise_for_status()

    def configure(self, **settings: Any) -> None:
        """Sets prices, filling, fee_rate, fee_asset, clock_offset, may_withdraw; decimals as text."""
        self._post("/settings", settings)

    def add_account(self, key: str, secret: str) -> None:
        """Adds a customer."""
        self._post("/accounts", {"key": key, "secret": secret})

    def fill(self, client_order_id: str, parts: int = 1) -> None:
        """Fills the next parts of an order (filling `manual`)."""
        self._post("/fill", {"client_order_id": client_order_id, "parts": parts})

    def orders(self) -> list[dict[str, Any]]:
        """Gives the orders that were taken, in their order."""
        listed: list[dict[str, Any]] = self._get("/orders")
        return listed

    def counts(self) -> Counter[str]:
        """Counts the orders that were taken by client order id: 2 is a doubled order."""
        return Counter(order["client_order_id"] for order in self.orders())

    def received(self) -> list[dict[str, Any]]:
        """Gives every request that came: method, path, parameters."""
        listed: list[dict[str, Any]] = self._get("/received")
        return listed

    def sent(self, client_order_id: str) -> int:
        """Counts the POSTs of orders of this client order id that came, taken or not."""
        return sum(
            request["method"] == "POST" and request["parameters"].get("newClientOrderId") == client_order_id
            for request in self.received()
        )

    def reset(self) -> None:
        """Makes the exchange forget everything."""
        self._post("/reset", {})

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def _post(self, path: str, command: dict[str, Any]) -> None:
        self._http.post(path, json=command).raise_for_status()

    def _get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()


@contextmanager
def stub_process(port: int = 0) -> Iterator[Control]:
    """Runs a stub exchange in a process of its own; gives what commands it."""
    command = [sys.executable, "-m", "tests.stub_exchange", "--port", str(port)]
    with subprocess.Popen(command, cwd=BACKEND, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            control = Control(process.stdout.readline().strip())
            try:
                yield control
            finally:
                control.close()
        finally:
            process.terminate()
