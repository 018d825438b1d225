"""Versions of the backend to deploy: cheap variants of the image that a host runs, pushed where hosts pull from.

Each is one or two small layers on top of that image, so nothing is built and no package index is asked.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.testbed import hosts
from tests.testbed.shell import TestbedError

REPOSITORY = "registry:5000/tradingbot-backend"
# What a deploy is told to pull one of them.
IMAGE = REPOSITORY + ":{{ backend_version }}"
VARIANTS = Path(__file__).parent / "variants"
FOLDER = "/tmp/tradingbot-versions"
# Where the image keeps its revisions, and the number of the last one.
LOOK = """
import json, pathlib, tradingbot.migrations as found
folder = pathlib.Path(found.__file__).parent / "versions"
print(json.dumps([str(folder), max(int(path.name[:4]) for path in folder.glob("[0-9]*_*.py"))]))
"""
REVISION = '''"""{title}."""

from alembic import op

revision = "{number:04d}"
down_revision = "{before:04d}"
branch_labels = None
depends_on = None
{more}

def upgrade() -> None:
    """Go forward."""
    op.execute("{forward}")


def downgrade() -> None:
    """Go back."""
    op.execute("{back}")
'''


@dataclass(frozen=True)
class Step:
    """A revision of the schema, in SQL. `contract`: only code that knows the revision before can live with it."""

    name: str
    forward: str
    back: str = "SELECT 1"
    contract: bool = False

    def text(self, number: int) -> str:
        """Return the revision's module."""
        more = f'contract = "{number - 1:04d}"\n' if self.contract else ""
        return REVISION.format(
            title=self.name.replace("_", " ").capitalize(),
            number=number,
            before=number - 1,
            more=more,
            forward=self.forward,
            back=self.back,
        )


@dataclass(frozen=True)
class Version:
    """A version to make: its number, what it runs in place of `tradingbot`, and its further revisions."""

    number: str
    program: str = ""
    steps: tuple[Step, ...] = ()


BREAKS = Step("breaks", "SELECT 1 / 0")
ADDS = Step("adds_a_note", "ALTER TABLE strategies ADD COLUMN note TEXT", "ALTER TABLE strategies DROP COLUMN note")
DROPS_UNSAID = Step("drops_without_saying_so", "ALTER TABLE signals DROP COLUMN comment")
DROPS = Step("drops_the_note", "ALTER TABLE strategies DROP COLUMN note", ADDS.forward, contract=True)


def make(host: hosts.Host, versions: list[Version]) -> None:
    """Make and push these versions on *host*, from the image that its worker runs. Raises TestbedError."""
    inspect = "docker inspect --format {{.Config.Image}} tradingbot-worker-1"
    base = on_host(host, inspect)
    folder, head = json.loads(on_host(host, f"docker run --rm --interactive {base} python -", LOOK.encode()))
    on_host(host, f"rm -rf {FOLDER} && mkdir {FOLDER} && tar -x -C {FOLDER}", context(base, folder, head, versions))
    for version in versions:
        name = f"{REPOSITORY}:{version.number}"
        on_host(host, f"cd {FOLDER} && docker build --quiet --file {version.number}/Dockerfile --tag {name} .")
        on_host(host, f"docker push --quiet {name} && docker image rm {name}")


def dockerfile(base: str, folder: str, version: Version) -> str:
    """Return the recipe of a version."""
    lines = [
        f"FROM {base}",
        f"ENV TRADINGBOT_VERSION={version.number}",
        f"LABEL org.opencontainers.image.version={version.number}",
    ]
    if version.program:
        lines.append(f"COPY {version.number}/tradingbot /opt/tradingbot/bin/tradingbot")
    if version.steps:
        lines.append(f"COPY {version.number}/versions/ {folder}/")
    return "\n".join(lines) + "\n"


def context(base: str, folder: str, head: int, versions: list[Version]) -> bytes:
    """Return what the builds need, as a tar file. Times are fixed, so that equal versions are equal layers."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for version in versions:
            files = {"Dockerfile": (dockerfile(base, folder, version), 0o644)}
            if version.program:
                files["tradingbot"] = ((VARIANTS / f"{version.program}.py").read_text(), 0o755)
            for number, step in enumerate(version.steps, head + 1):
                files[f"versions/{number:04d}_{step.name}.py"] = (step.text(number), 0o644)
            for name, (text, mode) in files.items():
                entry = tarfile.TarInfo(f"{version.number}/{name}")
                entry.size, entry.mode = len(text.encode()), mode
                tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def on_host(host: hosts.Host, command: str, stdin: bytes = b"") -> str:
    """Run a shell command on the host as root and return what it prints. Raises TestbedError."""
    remote = [*hosts.ssh(host), f"sudo sh -c {shlex.quote(command)}"]
    done = subprocess.run(remote, input=stdin, check=False, capture_output=True, timeout=300)
    if done.returncode != 0:
        raise TestbedError(f"exit {done.returncode} on the host from: {command}\n{done.stderr.decode().strip()}")
    return done.stdout.decode().strip()
