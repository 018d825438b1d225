# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The list of an image's parts: what is found, and how CycloneDX wants it said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any, cast

import pytest
from ansible_collections.tradingbot.stack.plugins.modules import image_sbom

ID = "sha256:" + "5d" * 32
IMAGE = {
    "Id": ID,
    "Created": "2026-11-26T08:00:00.123456789Z",
    "Config": {"Labels": {"org.opencontainers.image.version": "0.3.0"}},
}
FOUND: dict[str, Any] = {
    "python": [
        {"name": "SQLAlchemy", "version": "2.0.44", "expression": "MIT"},
        {"name": "typing_extensions", "version": "4.15.0", "names": ["PSF-2.0"]},
        {"name": "typing_extensions", "version": "4.15.0", "names": ["PSF-2.0"]},
        {"name": "tradingbot", "version": "0.3.0+local", "names": []},
    ],
    "debian": [
        {"name": "libstdc++6", "version": "1:14.2.0-19", "architecture": "amd64", "names": ["GFDL-1.2", "GPL-3"]},
        {"name": "tzdata", "version": "2025b-4", "architecture": "all", "names": []},
    ],
    "interpreter": "3.13.9",
    "system": {"id": "debian", "version": "13"},
}


@pytest.fixture
def sbom() -> dict[str, Any]:
    return image_sbom.compose("tradingbot-backend:0.3.0-0123456789ab", IMAGE, FOUND)


def test_has_what_cyclonedx_requires(sbom: dict[str, Any]) -> None:
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["specVersion"] == "1.6"
    assert sbom["version"] == 1
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", sbom["serialNumber"])
    for part in [*sbom["components"], sbom["metadata"]["component"], *sbom["metadata"]["tools"]["components"]]:
        assert part["type"] in {"application", "container", "library", "platform"}
        assert part["name"]
    references = [part["bom-ref"] for part in [*sbom["components"], sbom["metadata"]["component"]]]
    assert len(references) == len(set(references))
    (root,) = sbom["dependencies"]
    assert [root["ref"], *root["dependsOn"]] == [references[-1], *references[:-1]]
    for part in sbom["components"]:
        for licence in part.get("licenses", []):
            assert set(licence) == {"expression"} or set(licence["license"]) == {"name"}
        assert part.get("licenses") != []


def test_names_the_image_itself(sbom: dict[str, Any]) -> None:
    image = sbom["metadata"]["component"]
    assert (image["name"], image["version"]) == ("tradingbot-backend", "0.3.0")
    assert image["hashes"] == [{"alg": "SHA-256", "content": "5d" * 32}]
    assert sbom["metadata"]["timestamp"] == IMAGE["Created"]


def test_each_part_is_there_once_by_its_package_url(sbom: dict[str, Any]) -> None:
    assert [part["purl"] for part in sbom["components"]] == [
        "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0-19?arch=amd64&distro=debian-13",
        "pkg:deb/debian/tzdata@2025b-4?arch=all&distro=debian-13",
        "pkg:generic/python@3.13.9",
        "pkg:pypi/sqlalchemy@2.0.44",
        "pkg:pypi/tradingbot@0.3.0%2Blocal",
        "pkg:pypi/typing-extensions@4.15.0",
    ]


def test_licences_are_said_as_they_are_known(sbom: dict[str, Any]) -> None:
    told = {part["name"]: part.get("licenses") for part in sbom["components"]}
    assert told["SQLAlchemy"] == [{"expression": "MIT"}]
    assert told["libstdc++6"] == [{"license": {"name": "GFDL-1.2"}}, {"license": {"name": "GPL-3"}}]
    assert told["tzdata"] is None


def test_the_same_image_gives_the_same_list(sbom: dict[str, Any]) -> None:
    mixed = FOUND | {"python": FOUND["python"][::-1], "debian": FOUND["debian"][::-1]}
    assert image_sbom.compose("tradingbot-backend:0.3.0-0123456789ab", IMAGE, mixed) == sbom
    other = image_sbom.compose("tradingbot-backend:0.3.0-0123456789ab", IMAGE | {"Id": "sha256:" + "00" * 32}, FOUND)
    assert other["serialNumber"] != sbom["serialNumber"]


def test_an_image_without_labels_is_named_by_its_identity() -> None:
    bare = image_sbom.compose("backend", IMAGE | {"Config": {"Labels": None}}, FOUND | {"interpreter": None})
    assert bare["metadata"]["component"]["version"] == ID
    assert not [part for part in bare["components"] if part["type"] == "platform"]


def test_the_probe_finds_what_is_installed() -> None:
    """It runs here as in an image: with nothing but the standard library."""
    done = subprocess.run(
        [sys.executable, "-I", "-"], input=image_sbom.PROBE, check=True, capture_output=True, text=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert "ansible-core" in {part["name"] for part in found["python"]}
    assert all(part["version"] for part in found["python"])
    pytest_part = next(part for part in found["python"] if part["name"] == "pytest")
    assert "MIT" in str(pytest_part)
    assert image_sbom.components(found)


class StoppedError(Exception):
    """What a module that ended said."""


class FakeModule:
    """As much of AnsibleModule as the module uses, with the answers of docker."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        self.params = {"image": "tradingbot-backend:0.3.0"}
        self.answer = (status, output, errors)

    def run_command(self, _command: list[str], **_options: Any) -> tuple[int, str, str]:
        return self.answer

    def fail_json(self, msg: str) -> None:
        raise StoppedError(msg)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((1, "", "No such image\n"), "Cannot look into the image tradingbot-backend:0.3.0: No such image"),
        ((127, "", ""), "exit code 127"),
        ((0, "Python 3.13", ""), "this is no JSON: Python 3.13"),
    ],
)
def test_what_goes_wrong_is_said(answer: tuple[int, str, str], said: str) -> None:
    with pytest.raises(StoppedError) as stopped:
        image_sbom.asked(cast(Any, FakeModule(*answer)), ["docker"], "look into the image")
    assert said in str(stopped.value)
