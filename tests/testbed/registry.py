"""The local registry: hosts of the test bed use it as their mirror of Docker Hub."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request

from . import images
from .shell import TestbedError, output, run, say, step

NETWORK = "tradingbot-testbed"
# Meets neither the usual pools of Docker (172.17.0.0/12, 192.168.0.0/16) nor the stack's 172.20.0.0/16.
SUBNET = "10.99.0.0/24"
HOST_ADDRESSES = "10.99.0.128/25"
GATEWAY = "10.99.0.1"
CONTAINER = "tradingbot-testbed-registry"
VOLUME = "tradingbot-testbed-registry"
ADDRESS = "10.99.0.2"
PORT = int(os.environ.get("TESTBED_REGISTRY_PORT", "5000"))
MANIFEST_TYPES = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
]


def local_name(official: str) -> str:
    """Return the name of *official* in the local registry, for the outer engine."""
    return f"127.0.0.1:{PORT}/library/{official}"


def ensure_network() -> None:
    """Make the network of the hosts."""
    if run(["docker", "network", "inspect", NETWORK], check=False).returncode != 0:
        # Hosts get addresses from the upper half, so that none ever takes the registry's.
        addresses = ["--subnet", SUBNET, "--ip-range", HOST_ADDRESSES, "--gateway", GATEWAY]
        run(["docker", "network", "create", *addresses, NETWORK])


def is_there() -> bool:
    """Tell whether the registry has been made."""
    return run(["docker", "container", "inspect", CONTAINER], check=False).returncode == 0


def ensure() -> None:
    """Make the registry run and hold every image that hosts pull."""
    ensure_network()
    images.ensure_bases()
    image = images.registry_image()
    state = run(
        ["docker", "inspect", "--format", "{{.State.Running}} {{.Image}}", CONTAINER], check=False
    ).stdout.split()
    if state[:2] != ["true", images.image_id(image)]:
        run(["docker", "rm", "--force", CONTAINER], check=False)
        say(f"starting the registry on 127.0.0.1:{PORT}")
        run(
            [
                *["docker", "run", "--detach", "--name", CONTAINER, "--label", "tradingbot.testbed=registry"],
                *["--network", NETWORK, "--ip", ADDRESS, "--publish", f"127.0.0.1:{PORT}:5000"],
                *["--volume", f"{VOLUME}:/var/lib/docker-registry", image],
            ]
        )
    _wait()
    for stand_in in images.STAND_INS:
        source = images.source_of(stand_in.official)
        name = local_name(stand_in.official)
        if _is_up_to_date(stand_in.official, source):
            continue
        with step(f"pushing {stand_in.official} to the registry"):
            run(["docker", "tag", source, name])
            run(["docker", "push", "--quiet", name])


def _wait() -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v2/", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise TestbedError(
        f"the registry does not answer on 127.0.0.1:{PORT}; see `docker logs {CONTAINER}`. "
        "When the port is taken, set TESTBED_REGISTRY_PORT to another one"
    )


def _is_up_to_date(official: str, source: str) -> bool:
    """Tell whether the registry holds *source* as *official*."""
    digest = _digest_of(official)
    repository = local_name(official).rsplit(":", 1)[0]
    return bool(digest) and f"{repository}@{digest}" in images.pushed_digests(source)


def _digest_of(official: str) -> str:
    """Return the digest of what the registry holds as *official*, '' for nothing."""
    name, tag = official.split(":")
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v2/library/{name}/manifests/{tag}",
        method="HEAD",
        headers={"Accept": ", ".join(MANIFEST_TYPES)},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.headers["Docker-Content-Digest"])
    except urllib.error.HTTPError:
        return ""


def remove() -> None:
    """Remove the registry, its volume and the network of the hosts."""
    run(["docker", "rm", "--force", CONTAINER], check=False)
    run(["docker", "volume", "rm", "--force", VOLUME], check=False)
    tags = output(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).split()
    # What an image was called before its recipe changed goes with the test bed's own images.
    mine = [tag for tag in tags if tag.startswith(f"127.0.0.1:{PORT}/library/") and not tag.endswith(":<none>")]
    if mine:
        run(["docker", "image", "rm", *mine])
    if run(["docker", "network", "inspect", NETWORK], check=False).returncode == 0:
        run(["docker", "network", "rm", NETWORK])
