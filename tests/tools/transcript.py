"""Write docs/transcripts/*.txt: what a person sees who deploys, fails to, goes back, and looks at the health of a host.

`transcript.py` makes a host with the stack, as the benchmarks do, and removes it. `transcript.py INVENTORY HOST` uses
one of the test bed's; its `docker_host_daemon_options` must have `registry:5000` among `insecure-registries`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench import deploy
from tests.bench import host as bench
from tests.load import versions
from tests.testbed import __main__ as testbed
from tests.testbed import hosts
from tests.testbed.shell import TestbedError, fail, say

FOLDER = ROOT / "docs" / "transcripts"
SHOWN_INVENTORY = "inventories/prod"
SHOWN_HOST = "server1"
SOUND, UNREADY = "0.3.0", "0.3.1"


@dataclass(frozen=True)
class Scene:
    """One command, what is said above it, and the exit code that it has to end with."""

    name: str
    why: str
    playbook: str
    variables: dict[str, str]
    code: int = 0


def scenes() -> list[Scene]:
    """Return all scenes in the order in which they happen."""
    waits = {"backend_wait_timeout": "15"}
    return [
        Scene("deploy", "A new version.", "deploy", {"backend_version": SOUND}),
        Scene(
            "failed-deploy",
            "A version that never gets ready: it is given up, and the one before serves on.",
            "deploy",
            {"backend_version": UNREADY, **waits},
            code=2,
        ),
        Scene("rollback", "Back to the version before.", "rollback", {}),
        Scene("health", "How is the host?", "health", {}),
    ]


def cleaned(text: str, inventory: str, host: str) -> str:
    """Return what Ansible printed without what belongs to this machine or this run."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = text.replace(inventory, SHOWN_INVENTORY)
    for folder in (str(ROOT / ".cache" / "collections" / "ansible_collections" / "tradingbot" / "stack"), str(ROOT)):
        text = text.replace(folder + "/", "")
    text = re.sub(rf"(?<![\w-]){re.escape(host)}(?![\w-])", SHOWN_HOST, text)
    text = re.sub(r"\S+@\S+ since", "deploy@controller since", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(Z| UTC)?", r"2026-01-01T12:00:00\1", text)
    # Rows of asterisks and the recap are made for the names that were there before.
    text = re.sub(r"^((?:TASK|PLAY)\b.*?) \*+$", r"\1 ***", text, flags=re.MULTILINE)
    text = re.sub(rf"^{SHOWN_HOST} +: ", f"{SHOWN_HOST} : ", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.splitlines())).strip() + "\n"


def command(scene: Scene, inventory: str) -> list[str]:
    """Return the command of a scene, as a person types it."""
    words = ["ansible-playbook", f"playbooks/{scene.playbook}.yml", "-i", inventory]
    for name, value in scene.variables.items():
        words += ["-e", f"{name}={value}"]
    return words


def play(scene: Scene, inventory: str, host: str) -> str:
    """Run a scene and return its text. Raises TestbedError when it does not end as it has to."""
    words = command(scene, inventory)
    program = str(Path(sys.executable).with_name(words[0]))
    image = ["-e", json.dumps({"backend_image": versions.IMAGE})] if scene.playbook == "deploy" else []
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [program, *words[1:], *image],
        cwd=ROOT,
        env=plain | {"ANSIBLE_NOCOLOR": "1", "COLUMNS": "110"},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode != scene.code:
        raise TestbedError(f"{scene.name}: exit {done.returncode}, {scene.code} was expected:\n{done.stdout}")
    shown = " ".join(command(scene, SHOWN_INVENTORY))
    return f"# {scene.why}\n$ {shown}\n{cleaned(done.stdout, inventory, host)}$ echo $?\n{done.returncode}\n"


def write(inventory: str, name: str) -> None:
    """Make the versions, run the scenes on the host, and write their texts. Raises TestbedError."""
    say("making the versions to deploy")
    made = [versions.Version(SOUND), versions.Version(UNREADY, program="never_ready")]
    versions.make(hosts.describe(name), made)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for scene in scenes():
        say(f"running {' '.join(command(scene, inventory))}")
        (FOLDER / f"{scene.name}.txt").write_text(play(scene, inventory, name))


def main() -> None:
    """Write the transcripts, on a host that is there or on one made for it."""
    parser = argparse.ArgumentParser(prog="transcript.py", description="Write docs/transcripts.")
    parser.add_argument("inventory", nargs="?", help="inventory of a host that is there")
    parser.add_argument("host", nargs="?", help="its name (default: one is made, and removed)")
    given = parser.parse_args()
    if given.inventory and not given.host:
        parser.error("name the host, too")
    try:
        if given.host:
            write(given.inventory, given.host)
            return
        testbed.up()
        bench.refuse_kept()
        try:
            bench.create()
            deploy.deploy()
            write(str(bench.INVENTORY), bench.NAME)
        finally:
            bench.remove()
    except TestbedError as error:
        fail(error)


if __name__ == "__main__":
    main()
