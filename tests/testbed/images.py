"""Stand-ins of the official images, and the images of target hosts: built once, rebuilt when their recipe changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import base, machine
from .shell import TestbedError, output, run, say, step

RECIPES = Path(__file__).parent / "images"


@dataclass(frozen=True)
class StandIn:
    """An official image and the recipe that stands in for it where no public registry answers."""

    official: str
    recipe: str
    suite: str


STAND_INS = [
    StandIn("postgres:15-alpine", "postgres", "bookworm"),
    StandIn("redis:7-alpine", "redis", "bookworm"),
    StandIn("nginx:1.30-alpine", "nginx", "forky"),
    StandIn("python:3.13-slim", "python", "trixie"),
    StandIn("debian:trixie-slim", "debian", "trixie"),
]
TARGET_SUITES = ["trixie", "forky"]


def build(recipe: str, suite: str, tag: str) -> str:
    """Return *tag*, building it from images/*recipe* on Debian *suite* when it is missing or its recipe has changed."""
    files = sorted(path for path in (RECIPES / recipe).rglob("*") if path.is_file())
    start = f"debian:{suite}" if machine.public_registry() else base.tag_of(suite)
    wanted = base.digest(*files, extra=start if machine.public_registry() else base.recipe())
    if base.recipe_of(tag) == wanted:
        return tag
    if not machine.public_registry():
        base.ensure([suite])
    with step(f"building {tag}"):
        run(
            [
                *["env", "DOCKER_BUILDKIT=0", "docker", "build", "--force-rm", "--tag", tag],
                *["--build-arg", f"BASE={start}", "--label", f"{base.LABEL}={wanted}", str(RECIPES / recipe)],
            ]
        )
    return tag


def ensure_bases() -> None:
    """Make all base images at once where stand-ins have to be built and nothing is there yet."""
    suites = {stand_in.suite for stand_in in STAND_INS}
    if not machine.public_registry() and base.missing(suites) == sorted(suites):
        base.ensure(suites)


def source_of(official: str) -> str:
    """Return the image that serves as *official*: itself where a public registry answers, else its stand-in."""
    if machine.public_registry():
        if run(["docker", "image", "inspect", official], check=False).returncode != 0:
            with step(f"pulling {official}"):
                run(["docker", "pull", "--quiet", official])
        return official
    stand_in = next(s for s in STAND_INS if s.official == official)
    return build(stand_in.recipe, stand_in.suite, f"tradingbot-testbed/{stand_in.official}")


def target(suite: str) -> str:
    """Return the image of a bare host with systemd and SSH, and without Docker."""
    if suite not in TARGET_SUITES:
        raise TestbedError(f"no target host of suite {suite!r}; there are {', '.join(TARGET_SUITES)}")
    return build("target", suite, f"tradingbot-testbed/target:{suite}")


def registry_image() -> str:
    """Return the image of the registry that target hosts use as their mirror."""
    return build("registry", "bookworm", "tradingbot-testbed/registry:local")


def browser() -> str:
    """Return the image of a headless Chromium, for tests of what people see."""
    return build("chromium", "trixie", "tradingbot-testbed/chromium:local")


def image_id(tag: str) -> str:
    """Return the id of an image that is there."""
    return output(["docker", "image", "inspect", "--format", "{{.Id}}", tag])


def pushed_digests(tag: str) -> str:
    """Return under which names and digests an image has been pushed or pulled."""
    return output(["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", tag])


def remove_all() -> None:
    """Remove every image that the test bed built. Raises TestbedError when one is still in use."""
    say("removing the images of the test bed")
    listing = ["docker", "image", "ls", "--all", "--quiet", "--no-trunc", "--filter", f"label={base.LABEL}"]
    before: set[str] = set()
    while (left := set(output(listing).split())) and left != before:
        # An image goes only after those that were made from it, so one pass is not enough.
        run(["docker", "image", "rm", "--force", *sorted(left)], check=False)
        before = left
    if left:
        raise TestbedError(f"{len(left)} images of the test bed are in use; see `docker ps --all`, then try again")
