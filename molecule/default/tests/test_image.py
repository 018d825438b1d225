"""The backend's image: small, labelled, and without what only its build needed."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

import pytest

from tests.stack.host import output_of, services
from tests.testbed import hosts

LIMIT = 250_000_000
LABELS = "org.opencontainers.image."
# Looks through all that the image carries, from a container that has nothing else.
LOOK = """
import json, os, shutil
from pathlib import Path
programs = ["pip", "pip3", "easy_install", "uv", "gcc", "cc", "g++", "c++", "ld", "as", "make", "cmake", "cargo", "git"]
path = "/bin:/usr/bin:/usr/local/bin:/opt/tradingbot/bin"
packages = {"pip", "setuptools", "wheel", "ensurepip", "pkg_resources", "_distutils_hack"}
libraries = [Path("/usr/lib"), Path("/usr/local/lib"), Path("/opt"), Path("/app")]
lists = [file for folder in ("/var/lib/apt/lists", "/var/cache/apt/archives") for file in Path(folder).rglob("*")]
print(json.dumps({
    "programs": [name for name in programs if shutil.which(name, path=path)],
    "packages": [str(found) for library in libraries for found in library.rglob("*") if found.name in packages],
    "caches": [str(file) for file in lists if file.is_file() and file.name != "lock"],
    "build": [name for name in ("/build", "/src", "/app/src", "/root/.cache", "/root/.config") if os.path.exists(name)],
}))
"""


@pytest.fixture(scope="module")
def running(machine: hosts.Host) -> dict[str, Any]:
    """The backend's container."""
    return services(machine)["backend"]


@pytest.fixture(scope="module")
def image(machine: hosts.Host, running: dict[str, Any]) -> dict[str, Any]:
    """The image that the container runs."""
    return dict(json.loads(output_of(machine, f"docker image inspect {running['Image']}"))[0])


def test_it_is_small(image: dict[str, Any]) -> None:
    print(f"\nimage: {image['Size'] / 1e6:.0f} MB")
    assert image["Size"] <= LIMIT


def test_nothing_of_the_build_is_in_it(machine: hosts.Host, image: dict[str, Any]) -> None:
    run = f"docker run --rm --interactive --network none --user 0 --entrypoint python {image['Id']} -"
    found = json.loads(output_of(machine, run, LOOK))
    assert found == {"programs": [], "packages": [], "caches": [], "build": []}


def test_python_cannot_install_anything(machine: hosts.Host, image: dict[str, Any]) -> None:
    run = f"docker run --rm --interactive --network none --entrypoint python {image['Id']} -"
    look = (
        "import importlib.util as i; print([n for n in ('pip', 'setuptools', 'wheel', 'ensurepip') if i.find_spec(n)])"
    )
    assert output_of(machine, run, look) == "[]"


def test_it_says_what_it_is(machine: hosts.Host, image: dict[str, Any], running: dict[str, Any]) -> None:
    labels = image["Config"]["Labels"]
    created = datetime.datetime.fromisoformat(labels[f"{LABELS}created"])
    assert created.tzinfo
    assert datetime.timedelta() <= datetime.datetime.now(datetime.UTC) - created < datetime.timedelta(days=3650)
    assert re.fullmatch(r"[0-9a-f]{12,64}", labels[f"{LABELS}revision"])
    version = output_of(machine, f"docker run --rm --network none {image['Id']} tradingbot --version").split()[-1]
    assert labels[f"{LABELS}version"] == version
    for name in ("created", "revision", "version"):
        assert running["Config"]["Labels"][LABELS + name] == labels[LABELS + name]


def test_its_user_is_appuser_unless_told_otherwise(machine: hosts.Host, image: dict[str, Any]) -> None:
    assert image["Config"]["User"] == "10001:10001"
    assert output_of(machine, f"docker run --rm --network none {image['Id']} whoami") == "appuser"
    assert image["Config"]["Healthcheck"]["Test"] == ["CMD", "tradingbot", "health"]
    assert image["Config"]["Cmd"] == ["tradingbot", "serve"]


def test_without_settings_it_says_what_is_missing(machine: hosts.Host, image: dict[str, Any]) -> None:
    told = output_of(machine, f"docker run --rm --network none {image['Id']} 2>&1; echo code $?")
    assert told.endswith("code 2")
    for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "WEBHOOK_SECRET", "ENCRYPTION_KEY"):
        assert f"{name} is missing" in told
    assert "Traceback" not in told
