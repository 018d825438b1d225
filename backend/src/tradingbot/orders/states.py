"""The states of an order, and the ways between them. Nothing leads out of a final state.

| from | to | when |
|---|---|---|
| new | submitted | just before it is sent; only who makes this change may send it |
| new | cancelled, rejected | cancelled before it was sent; given up before it was sent |
| submitted, unknown | new | the exchange certainly did not get it; it refused what closes a position |
| submitted | unknown | sent, and what came of it is not known |
| unknown | submitted | found open at the exchange |
| submitted, unknown | partially_filled, filled, cancelled, rejected | the exchange says so |
| partially_filled | filled, cancelled | the exchange says so |
| submitted, unknown, partially_filled | filled, cancelled | a person says so: see settling.py |

A trade that an exchange reports after the order is final is booked all the same: it changes what is filled,
not the state.
"""

from collections.abc import Mapping

from tradingbot.orders.models import OrderState

_FROM_SENT = frozenset(
    {OrderState.PARTIALLY_FILLED, OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED}
)

TRANSITIONS: Mapping[OrderState, frozenset[OrderState]] = {
    OrderState.NEW: frozenset({OrderState.SUBMITTED, OrderState.CANCELLED, OrderState.REJECTED}),
    OrderState.SUBMITTED: _FROM_SENT | {OrderState.NEW, OrderState.UNKNOWN},
    OrderState.UNKNOWN: _FROM_SENT | {OrderState.NEW, OrderState.SUBMITTED},
    OrderState.PARTIALLY_FILLED: frozenset({OrderState.FILLED, OrderState.CANCELLED}),
    OrderState.FILLED: frozenset(),
    OrderState.CANCELLED: frozenset(),
    OrderState.REJECTED: frozenset(),
}


def may_become(state: OrderState, target: OrderState) -> bool:
    """Tells whether the table has this way."""
    return target in TRANSITIONS[state]


def sources(target: OrderState) -> tuple[OrderState, ...]:
    """Gives the states that lead to `target`."""
    return tuple(state for state in OrderState if target in TRANSITIONS[state])
