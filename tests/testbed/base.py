"""Minimal Debian images made by debootstrap: what all other images start from."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import engine, machine
from .shell import TestbedError, run, step

LABEL = "tradingbot.testbed.recipe"
# Documentation and translations are of no use in a container; Debian's slim images leave them out too.
BALLAST = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "var/lib/apt/lists",
]
DPKG_EXCLUDES = "".join(f"path-exclude /{path}/*\n" for path in BALLAST[:4])
# A mirror may be a snapshot whose Release file has run out; its signature is checked all the same.
APT_SETTINGS = 'Acquire::Languages "none";\nAcquire::Check-Valid-Until "false";\nAPT::Install-Recommends "false";\n'


def base(suite: str) -> str:
    """Return the tag of a minimal Debian image of *suite*, making it by debootstrap when it is missing."""
    tag = f"tradingbot-testbed/base:{suite}"
    recipe = digest(Path(__file__))
    if recipe_of(tag) == recipe:
        return tag
    engine.apt_install("debootstrap")
    with (
        step(f"making the base image of Debian {suite} (about half a minute)"),
        tempfile.TemporaryDirectory() as folder,
    ):
        root = Path(folder) / "root"
        # The archive's newer suites are made like sid; an older debootstrap does not know their names yet.
        script = ["sid"] if not Path(f"/usr/share/debootstrap/scripts/{suite}").exists() else []
        run(
            [
                "debootstrap",
                "--variant=minbase",
                "--include=ca-certificates",
                suite,
                str(root),
                machine.debian_mirror(),
                *script,
            ]
        )
        for path in BALLAST:
            shutil.rmtree(root / path, ignore_errors=True)
        for archive in (root / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(DPKG_EXCLUDES)
        (root / "etc/apt/apt.conf.d/slim").write_text(APT_SETTINGS)
        archive_stream = subprocess.Popen(
            ["tar", "--numeric-owner", "-C", str(root), "-c", "."], stdout=subprocess.PIPE
        )
        subprocess.run(
            ["docker", "import", "--change", f"LABEL {LABEL}={recipe}", "--change", 'CMD ["bash"]', "-", tag],
            check=True,
            stdin=archive_stream.stdout,
            stdout=subprocess.DEVNULL,
        )
        if archive_stream.wait() != 0:
            raise TestbedError(f"tar could not read the base system of {suite}")
    return tag


def recipe_of(tag: str) -> str:
    """Return the digest of the recipe that *tag* was made from, '' when it is not there."""
    found = run(["docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', tag], check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


def digest(*files: Path, extra: str = "") -> str:
    """Return a short digest of the names and contents of *files* and of *extra*."""
    state = hashlib.sha256(extra.encode())
    for file in files:
        state.update(file.name.encode() + file.read_bytes())
    return state.hexdigest()[:16]
