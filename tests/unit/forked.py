"""Runs Ansible's programs and our modules in processes that begin with Ansible imported.

They are forked from one that has imported it once: importing takes longer than what most tests run. Everything else is
as with a process that is started: arguments, variables, folder, standard streams, exit code.
`python tests/unit/forked.py` is the process that they are forked from.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120
# What Ansible reads when it is imported, so it is the same for all.
COMMON = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_BECOME_ALLOW_SAME_USER": "1",
    "COLUMNS": "1000",
}


def ansible(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `ansible-playbook` or `ansible-vault` in the root of the project, with variables beside those of this one."""
    return run(program, arguments, variables)


def module(path: Path | str, words: str) -> subprocess.CompletedProcess[str]:
    """Run a module as Ansible does: with its arguments as JSON on standard input."""
    return run(str(path), (), {}, words)


def run(
    program: str, arguments: Sequence[str], variables: dict[str, str], given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program of Ansible, or the file of a module, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("in", "out", "err")]
        streams[0].write_text(given)
        request = {
            "program": program,
            "arguments": arguments,
            "environment": dict(os.environ) | COMMON | variables,
            "streams": [str(path) for path in streams],
        }
        origin = _origin()
        assert origin.stdin is not None
        assert origin.stdout is not None
        origin.stdin.write(f"{json.dumps(request)}\n")
        origin.stdin.flush()
        if not select.select([origin.stdout], [], [], TIMEOUT)[0]:
            os.killpg(origin.pid, signal.SIGKILL)
            _origin.cache_clear()
            raise TimeoutError(f"{program} has not ended after {TIMEOUT} s")
        code = int(origin.stdout.readline())
        out, err = (path.read_text() for path in streams[1:])
    return subprocess.CompletedProcess([program, *arguments], code, out, err)


@functools.cache
def _origin() -> subprocess.Popen[str]:
    """Start the process that others are forked from."""
    command = [sys.executable, __file__]
    environment = os.environ | COMMON | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdin=pipe,
        stdout=pipe,
        text=True,
        start_new_session=True,
    )
    atexit.register(process.communicate)
    return process


def _serve() -> int:
    """Fork a process for each request, one after the other. Return an exit code, also in these."""
    for name in ("ansible.cli.playbook", "ansible.cli.vault", "ansible.module_utils.basic"):
        importlib.import_module(name)
    while line := sys.stdin.readline():
        process_id = os.fork()
        if not process_id:
            return _become(**json.loads(line))
        _, status = os.waitpid(process_id, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return 0


def _become(program: str, arguments: list[str], environment: dict[str, str], streams: list[str]) -> int:
    """Go on as the program that was asked for."""
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    if not program.startswith("ansible-"):
        runpy.run_path(program, run_name="__main__")
        return 0
    # Made when the constants are imported, and removed when the first process ends.
    Path(importlib.import_module("ansible.constants").DEFAULT_LOCAL_TMP).mkdir(parents=True, exist_ok=True)
    code = importlib.import_module(f"ansible.cli.{program.removeprefix('ansible-')}").main()
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(_serve())
