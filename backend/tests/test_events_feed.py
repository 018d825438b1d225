"""The order of events, whatever order, repetition and loss they arrive with."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as some

from tradingbot.events.feed import Feed
from tradingbot.events.schemas import Event

USER = UUID(int=1)
SIZE = 8


def event(sequence: int) -> Event:
    return Event(user_id=USER, sequence=sequence, type="order", data={})


def numbers(messages: list[tuple[int, str]] | None) -> list[int]:
    return [sequence for sequence, _text in messages or []]


@given(
    start=some.integers(0, 5),
    arrivals=some.lists(some.integers(1, 20), max_size=60),
    loads=some.sets(some.integers(0, 59)),
)
def test_a_reader_gets_each_number_once_and_in_order(
    start: int, arrivals: list[int], loads: set[int]
) -> None:
    feed, cursor, got = Feed(SIZE), start, []
    feed.start(start)
    for step, sequence in enumerate(arrivals):
        feed.offer(event(sequence))
        if step in loads:
            feed.load(event(number) for number in range((feed.last or 0) + 1, max(arrivals[: step + 1]) + 1))
            assert not feed.is_behind
        messages = feed.after(cursor)
        # What is not in memory any more comes from PostgreSQL.
        new = list(range(cursor + 1, (feed.last or 0) + 1)) if messages is None else numbers(messages)
        got += new
        cursor = new[-1] if new else cursor
    assert got == list(range(start + 1, cursor + 1))
    assert cursor == feed.last
    assert feed.newest == max([start, *arrivals])
    assert feed.is_behind == (feed.newest > cursor)


def test_what_arrives_before_the_start_is_known_to_be_missing() -> None:
    feed = Feed(SIZE)
    feed.offer(event(4))
    assert (feed.after(0), feed.is_behind) == ([], False)
    feed.start(3)
    assert feed.is_behind


def test_only_the_newest_are_kept() -> None:
    feed = Feed(SIZE)
    feed.start(0)
    for sequence in range(1, SIZE + 3):
        feed.offer(event(sequence))
    assert feed.after(1) is None
    assert numbers(feed.after(2)) == list(range(3, SIZE + 3))


def test_a_hole_in_what_is_stored_is_jumped_over() -> None:
    feed = Feed(SIZE)
    feed.start(0)
    feed.offer(event(1))
    feed.load([event(5), event(6)])
    assert feed.last == 6
    assert feed.after(1) is None
    assert numbers(feed.after(4)) == [5, 6]


def test_early_ones_are_kept_up_to_a_number() -> None:
    feed = Feed(SIZE)
    feed.start(0)
    for sequence in range(2, 4 * SIZE):
        feed.offer(event(sequence))
    feed.offer(event(1))
    assert feed.last == SIZE + 1
    assert feed.is_behind
