"""The log when nobody reads it, as while the engine is away: nothing waits, and what is lost is told."""

import fcntl
import json
import os
import subprocess
import sys
import termios
import time
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
def chatty(script: str = CHATTY) -> Iterator[Chatty]:
    """Yield a process that is ended with the test."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Chatty(process)
        finally:
            process.kill()


def held(pipe: IO[str]) -> int:
    """Return how many bytes are in the pipe."""
    return int.from_bytes(fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


def test_nothing_waits_for_a_reader_and_the_lines_that_are_lost_are_counted() -> None:
    kept = ""
    with chatty() as it:
        os.set_blocking(it.output.fileno(), False)
        for _ in range(ROUNDS):
            assert it.rounds.readline() == "end of the round\n"
            # The reader is back, and takes half of what is there.
            kept += os.read(it.output.fileno(), held(it.output) // 2).decode()
            it.answers.write("\n")
            it.answers.flush()
        os.set_blocking(it.output.fileno(), True)
        kept += it.output.read()
    lines, cut = [], []
    for line in kept.splitlines():
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


THREADS = """
import sys
import threading
import structlog
from tradingbot.core.logging import configure_logging

configure_logging("info")
log = structlog.stdlib.get_logger("chatty")
sys.setswitchinterval(0.00001)


def chat(name):
    for number in range(2000):
        log.info("a line", name=name, number=number, text="x" * (9_000 if number % 3 else 100))


threads = [threading.Thread(target=chat, args=(name,)) for name in "abc"]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("through", flush=True, file=sys.stderr)
input()
log.info("a last line")
"""


def test_lines_of_several_threads_are_counted_and_not_mixed() -> None:
    with chatty(THREADS) as it:
        kept = ""
        # A reader that is too slow, so that lines are lost and told of all the time.
        while not held(it.rounds):
            kept += os.read(it.output.fileno(), 20_000).decode()
            time.sleep(0.001)
        kept += os.read(it.output.fileno(), held(it.output)).decode()
        it.answers.write("\n")
        it.answers.flush()
        kept += it.output.read()
    whole = [line for line in kept.splitlines() if line.endswith("}")]
    lines = [json.loads(line) for line in whole]
    told = sum(line["lines"] for line in lines if line["event"].startswith("lines of the log were lost"))
    assert told + sum(line["event"] == "a line" for line in lines) == 6000
