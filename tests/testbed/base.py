"""Minimal Debian images made by debootstrap: what all other images start from."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import engine, machine
from .shell import TestbedError, run, step

LABEL = "tradingbot.testbed.recipe"
OPTIONS = ["--variant=minbase", "--include=ca-certificates"]
# Documentation and translations are of no use in a container; Debian's slim images leave them out too.
UNUSED = ["usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/i18n"]
DPKG_EXCLUDES = "".join(f"path-exclude /{path}/*\n" for path in UNUSED)
# A mirror may be a snapshot whose Release file has run out; its signature is checked all the same.
APT_SETTINGS = 'Acquire::Languages "none";\nAcquire::Check-Valid-Until "false";\nAPT::Install-Recommends "false";\n'


def tag_of(suite: str) -> str:
    """Return the tag of the minimal image of *suite*."""
    return f"tradingbot-testbed/base:{suite}"


def recipe() -> str:
    """Return the digest of what goes into every base image."""
    return digest(extra=repr([OPTIONS, UNUSED, DPKG_EXCLUDES, APT_SETTINGS]))


def missing(suites: Iterable[str]) -> list[str]:
    """Return those of *suites* that have no base image of the present recipe."""
    return sorted({suite for suite in suites if recipe_of(tag_of(suite)) != recipe()})


def ensure(suites: Iterable[str]) -> None:
    """Make the base images that are missing, two at a time."""
    to_make = missing(suites)
    if to_make:
        engine.apt_install("debootstrap")
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(_make, to_make))


def _make(suite: str) -> None:
    with (
        step(f"making the base image of Debian {suite} (about half a minute)"),
        tempfile.TemporaryDirectory() as folder,
    ):
        root = Path(folder) / "root"
        # The archive's newer suites are made like sid; an older debootstrap does not know their names yet.
        script = ["sid"] if not Path(f"/usr/share/debootstrap/scripts/{suite}").exists() else []
        run(["debootstrap", *OPTIONS, suite, str(root), machine.debian_mirror(), *script])
        for path in [*UNUSED, "var/lib/apt/lists"]:
            shutil.rmtree(root / path, ignore_errors=True)
        for archive in (root / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(DPKG_EXCLUDES)
        (root / "etc/apt/apt.conf.d/slim").write_text(APT_SETTINGS)
        _import(root, tag_of(suite))


def _import(root: Path, tag: str) -> None:
    with subprocess.Popen(["tar", "--numeric-owner", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
        subprocess.run(
            ["docker", "import", "--change", f"LABEL {LABEL}={recipe()}", "--change", 'CMD ["bash"]', "-", tag],
            check=True,
            stdin=archive.stdout,
            stdout=subprocess.DEVNULL,
        )
    if archive.returncode != 0:
        raise TestbedError(f"tar could not read the system that was to become {tag}")


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
