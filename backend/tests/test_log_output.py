"""The log when nobody reads it, as while the engine is away: nothing waits, and what is lost is told."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

ROUNDS, LINES = 3, 200
# Each round is several times what a pipe can hold. Lines that are longer than a page can be cut.
CHATTY = f"""
import sys
import structlog
from tradingbot.core.logging import configure_logging

configure_logging("info")
log = structlog.stdlib.get_logger("chatty")
for number in range({ROUNDS * LINES}):
    log.info("a line", number=number, text="x" * (20_000 if number % 3 else 100))
    if number % {LINES} == {LINES - 1}:
        print("end of the round", flush=True, file=sys.stderr)
        input()
log.info("a last line")
"""


class Chatty:
    """A process that logs, the other ends of its input and its output, and what it says of its rounds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.answers = cast("IO[str]", process.stdin)
        self.output = cast("IO[str]", process.stdout)
        self.rounds = cast("IO[str]", process.stderr)


@contextmanager
def chatty() -> Iterator[Chatty]:
    """Gives a process that is ended with the test."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", CHATTY]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Chatty(process)
        finally:
            process.kill()


def test_nothing_waits_for_a_reader_and_the_lines_that_are_lost_are_counted() -> None:
    kept = []
    with chatty() as it:
        for _ in range(ROUNDS):
            assert it.rounds.readline() == "end of the round\n"
            # The reader is back, and takes half of what a pipe holds.
            kept += [it.output.readline() for _ in range(25)]
            it.answers.write("\n")
            it.answers.flush()
        kept += it.output.readlines()
    lines, cut = [], []
    for line in kept:
        try:
            lines.append(json.loads(line))
        except ValueError:
            cut.append(line)
    numbers = [line["number"] for line in lines if line["event"] == "a line"]
    assert numbers == sorted(set(numbers))
    assert numbers[:20] == list(range(20))
    assert lines[-1]["event"] == "a last line"
    told = [line["lines"] for line in lines if line["event"].startswith("lines of the log were lost")]
    assert sum(told) == ROUNDS * LINES - len(numbers)
    assert len(told) >= ROUNDS
    # None is stuck to the one after it.
    assert cut
    assert all('{"' not in line[1:] for line in cut)


def test_a_reader_that_is_gone_does_no_harm() -> None:
    with chatty() as it:
        it.output.close()
        it.answers.write("\n" * ROUNDS)
        it.answers.close()
        assert it.rounds.readlines() == ["end of the round\n"] * ROUNDS
        assert it.process.wait(10) == 0
