"""Where the web workers keep their counts, so that each can tell those of all.

prometheus_client counts into files when PROMETHEUS_MULTIPROC_DIR is set, one set of files a process. It looks
at that variable once, when it is imported: nothing here imports it before the variable is set.
"""

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "tradingbot-metrics-"


@contextmanager
def shared_counts(parent: Path) -> Iterator[Path]:
    """Makes a new directory in `parent` (memory, best of all) for this process and those that it starts.

    Raises:
        OSError: it cannot be made.
        RuntimeError: too late.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client is imported: it would count in memory")
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    os.environ[VARIABLE] = str(directory)
    try:
        yield directory
    finally:
        os.environ.pop(VARIABLE, None)
        shutil.rmtree(directory, ignore_errors=True)


def forget_process(pid: int) -> None:
    """Takes a process that ended out of the gauges; what it counted stays counted."""
    if os.environ.get(VARIABLE):
        importlib.import_module("prometheus_client.multiprocess").mark_process_dead(pid)
