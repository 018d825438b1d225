#!/usr/bin/python
# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ansible module that lists what is in a container image."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_sbom
short_description: Lists the parts of a container image in CycloneDX
version_added: "0.3.0"
description:
  - Runs the image once, without a network and with a read-only root, and lists the Python distributions and Debian
    packages that are in it, with their versions and licences. What was asked for at a build does not matter.
  - The same image gives the same list, with the time of the image and not of the run.
  - Needs the command C(docker) on the host, and C(python) in the image.
author:
  - The tradingbot.stack maintainers (@tradingbot)
options:
  image:
    description: Name or id of an image that is on the host.
    type: str
    required: true
attributes:
  check_mode:
    description: Changes nothing, and does the same in check mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - name: CycloneDX 1.6
    description: The form of the list.
    link: https://cyclonedx.org/docs/1.6/json/
"""

EXAMPLES = r"""
- name: List what is in the image
  tradingbot.stack.image_sbom:
    image: tradingbot-backend:0.2.0
  register: listed

- name: Ensure the list is on the controller
  ansible.builtin.copy:
    content: "{{ listed.sbom | ansible.builtin.to_nice_json }}"
    dest: sbom.json
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
sbom:
  description: The list, to be written as JSON.
  type: dict
  returned: success
"""

import json
import uuid
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingbot.stack.plugins.module_utils import failures

# Runs in the image, so it knows nothing of this collection.
PROBE = r"""
import glob, importlib.metadata, json, platform, re, sys

def licences(metadata):
    if metadata.get("License-Expression"):
        return {"expression": metadata["License-Expression"]}
    named = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier", []) if line.startswith("License :: ")]
    text = (metadata.get("License") or "").strip()
    # Some put the whole text of their licence there.
    if not named and text and "\n" not in text and len(text) <= 100:
        named = [text]
    return {"names": sorted(set(named))}

folders = sys.path + glob.glob("/usr/local/lib/python3*/*-packages") + glob.glob("/usr/lib/python3*/*-packages")
python = []
for found in importlib.metadata.distributions(path=list(dict.fromkeys(folders))):
    if found.metadata.get("Name"):
        python.append({"name": found.metadata["Name"], "version": found.version, **licences(found.metadata)})

debian = []
for path in ["/var/lib/dpkg/status", *sorted(glob.glob("/var/lib/dpkg/status.d/*"))]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            paragraphs = file.read().split("\n\n")
    except OSError:
        continue
    for paragraph in paragraphs:
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if "Package" not in fields or not fields.get("Status", "ok installed").endswith("ok installed"):
            continue
        try:
            with open(f"/usr/share/doc/{fields['Package']}/copyright", encoding="utf-8", errors="replace") as file:
                named = re.findall(r"^License: *(\S.*?) *$", file.read(), re.MULTILINE)
        except OSError:
            named = []
        debian.append({"name": fields["Package"], "version": fields["Version"],
                       "architecture": fields.get("Architecture", ""), "names": sorted(set(named))})

try:
    system = platform.freedesktop_os_release()
except OSError:
    system = {}
print(json.dumps({
    "python": python,
    "debian": debian,
    # Debian's own is among its packages.
    "interpreter": None if sys.base_prefix == "/usr" else platform.python_version(),
    "system": {"id": system.get("ID", "linux"), "version": system.get("VERSION_ID", "")},
}))
"""


def licences(part: dict[str, Any]) -> dict[str, Any]:
    """Return the licences of a part in the words of CycloneDX; nothing when none is known."""
    if part.get("expression"):
        return {"licenses": [{"expression": part["expression"]}]}
    named = [{"license": {"name": name}} for name in part.get("names", [])]
    return {"licenses": named} if named else {}


def component(kind: str, name: str, version: str, purl: str, part: dict[str, Any]) -> dict[str, Any]:
    """Return one part in the words of CycloneDX."""
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl, **licences(part)}


def components(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each part that the probe found, once, in the order of their package URLs."""
    system = found["system"]
    distribution = quote(f"{system['id']}-{system['version']}".rstrip("-"))
    parts = []
    for part in found["python"]:
        # The package URL of PyPI has the name in lower case and without underscores.
        purl = f"pkg:pypi/{quote(part['name'].lower().replace('_', '-'))}@{quote(part['version'])}"
        parts.append(component("library", part["name"], part["version"], purl, part))
    for part in found["debian"]:
        purl = (
            f"pkg:deb/{quote(system['id'])}/{quote(part['name'])}@{quote(part['version'], safe='')}"
            f"?arch={quote(part['architecture'])}&distro={distribution}"
        )
        parts.append(component("library", part["name"], part["version"], purl, part))
    if found["interpreter"]:
        version = found["interpreter"]
        parts.append(component("platform", "python", version, f"pkg:generic/python@{version}", {"names": ["PSF-2.0"]}))
    return [part for _, part in sorted({part["purl"]: part for part in parts}.items())]


def compose(name: str, image: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the list of an image's parts, from what Docker and the probe say of it."""
    identity = image["Id"]
    labels = (image.get("Config") or {}).get("Labels") or {}
    parts = components(found)
    reference = f"image:{identity}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, identity)}",
        "version": 1,
        "metadata": {
            "timestamp": image["Created"],
            "tools": {"components": [{"type": "application", "name": "tradingbot.stack.image_sbom"}]},
            "component": {
                "type": "container",
                "bom-ref": reference,
                "name": name.rsplit(":", 1)[0],
                "version": labels.get("org.opencontainers.image.version") or identity,
                "hashes": [{"alg": "SHA-256", "content": identity.removeprefix("sha256:")}],
            },
        },
        "components": parts,
        "dependencies": [{"ref": reference, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def asked(module: AnsibleModule, command: list[str], what: str, data: str | None = None) -> Any:
    """Return the JSON that *command* prints; end the module when it does not."""
    status, output, errors = module.run_command(command, data=data, binary_data=True)
    if status != 0:
        module.fail_json(
            msg=f"Cannot {what} {module.params['image']}: {failures.described(errors.strip() or f'exit code {status}')}"
        )
    try:
        return json.loads(output)
    except ValueError:
        module.fail_json(msg=f"Cannot {what} {module.params['image']}: this is no JSON: {output[:200]}")


def main() -> None:
    """Look at the image, look into it, and list what there is."""
    module = AnsibleModule(argument_spec={"image": {"type": "str", "required": True}}, supports_check_mode=True)
    name = module.params["image"]
    docker = module.get_bin_path("docker", required=True)
    (image,) = asked(module, [docker, "image", "inspect", name], "find the image")
    closed = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    command = [
        docker,
        "run",
        "--rm",
        "--interactive",
        "--pull",
        "never",
        *closed,
        "--entrypoint",
        "python",
        image["Id"],
    ]
    found = asked(module, [*command, "-I", "-"], "look into the image", data=PROBE)
    module.exit_json(changed=False, sbom=compose(name, image, found))


if __name__ == "__main__":
    main()
