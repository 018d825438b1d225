"""An exchange of ours on loopback: it speaks what we use of Binance's REST, and misbehaves on command.

In a test: `async with StubExchange() as stub:` gives `stub.url`, the books in `stub.account` and faults by
`stub.faults.add(Fault(…))`. From another process: `python -m tests.stub_exchange --port N` (or
`stub_process()`), commanded through `Control(url)`.
"""

from tests.stub_exchange.book import DEFAULT_KEY, DEFAULT_SECRET, Account, Booked
from tests.stub_exchange.control import Control, stub_process
from tests.stub_exchange.faults import Fault
from tests.stub_exchange.fills import Filling
from tests.stub_exchange.server import StubExchange

__all__ = [
    "DEFAULT_KEY",
    "DEFAULT_SECRET",
    "Account",
    "Booked",
    "Control",
    "Fault",
    "Filling",
    "StubExchange",
    "stub_process",
]
