# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What an inventory must have filled in before a server can be reached."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PLACEHOLDER = "CHANGE_ME"

_SED = "sed -i 's|{name}: {old}|{name}: {new}|' {inventory}/{file}"

FILL: dict[str, tuple[str, str, str]] = {
    "ansible_host": (
        "hosts.yml",
        "203.0.113.10",
        "put the server's own name or address",
    ),
    "nginx_server_names": (
        "group_vars/all/main.yml",
        "[bot.example.com]",
        "put the names in your certificate",
    ),
    "docker_host_firewall_ssh_sources": (
        "group_vars/all/main.yml",
        "[203.0.113.0/24]",
        "put the networks that you administer from; others will not reach SSH",
    ),
}
"""Variables of inventories/prod to fill in: file, example value, what to put."""

FILES = {
    "tls_certificate_file": "install -D -m 0644 fullchain.pem {path}",
    "tls_private_key_file": "install -D -m 0600 privkey.pem {path}",
}
"""Variables that name a file on the controller, and how to put it there."""

IMAGES = {
    "postgres": ["postgres_image"],
    "redis": ["redis_image"],
    # What is built has no digest before: its base image does.
    "backend": ["backend_image", "backend_build_python_image"],
    "nginx": ["nginx_image"],
}
"""By group, the variables that name the image of a service: the first that is given counts."""

Finding = dict[str, str]

_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")


def holds_placeholder(value: object) -> bool:
    """Return whether CHANGE_ME stands anywhere in *value*."""
    if isinstance(value, str):
        return PLACEHOLDER in value
    if isinstance(value, Mapping):
        return any(holds_placeholder(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(holds_placeholder(item) for item in value)


def placeholder_findings(variables: Mapping[str, object], inventory: str) -> list[Finding]:
    """Return a finding for each of *variables* that still holds the placeholder."""
    found = []
    for name in sorted(variables):
        if not holds_placeholder(variables[name]):
            continue
        fix = f"grep -rn {PLACEHOLDER} {inventory}, and put the real value there"
        if name in FILL:
            file, example, what = FILL[name]
            old = "\\[" + PLACEHOLDER + "\\]" if example.startswith("[") else PLACEHOLDER
            fix = _SED.format(name=name, old=old, new=example, inventory=inventory, file=file) + f"   ({what})"
        found.append({"what": name, "why": f"is still the placeholder {PLACEHOLDER}", "fix": fix})
    return found


def file_finding(name: str, path: str) -> Finding:
    """Return the finding that the file *path*, named by variable *name*, is not there."""
    return {"what": name, "why": f"{path} is not there", "fix": FILES[name].format(path=path)}


def digest_findings(groups: Iterable[str], images: Mapping[str, str]) -> list[Finding]:
    """Return a finding for each service of *groups* whose image, by variable in *images*, has no digest."""
    found = []
    for names in [names for group, names in IMAGES.items() if group in groups]:
        given = [name for name in names if images.get(name)]
        name = given[0] if given else names[-1]
        if _DIGEST.fullmatch(images.get(name, "")):
            continue
        found.append(
            {
                "what": name,
                "why": f"{images.get(name) or 'the default'} has no digest, and image_digests_required is true",
                "fix": f"pin it in the inventory, `{name}: <name>:<tag>@sha256:<digest>`; "
                "`docker buildx imagetools inspect <name>:<tag>` shows the digest",
            }
        )
    return found
