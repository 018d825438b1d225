"""What this machine reaches and how: package mirrors, name servers, pip's settings. Probed, never asked."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path

from .shell import ROOT, STATE, TestbedError

ANSIBLE_VARS = ROOT / "inventories" / "demo" / "group_vars" / "all" / "machine.yml"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

SOURCE = re.compile(r"^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s+)?)(https?://\S+)", re.MULTILINE)


@cache
def public_registry() -> bool:
    """Tell whether Docker Hub answers (401 is its normal answer to a stranger)."""
    try:
        with urllib.request.urlopen("https://registry-1.docker.io/v2/", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


@cache
def debian_mirror() -> str:
    """Return the Debian mirror that this machine's apt uses. Raises TestbedError when it names none."""
    return mirror_in(Path("/etc/apt"))


def mirror_in(apt: Path) -> str:
    """Return the first Debian mirror among the sources in *apt*, which are of one line each or in deb822's form."""
    for path in sorted(apt.glob("sources.list*")):
        for file in sorted(path.glob("*")) if path.is_dir() else [path]:
            for url in SOURCE.findall(file.read_text()):
                if re.search(r"/debian/?$", url):
                    return str(url).rstrip("/")
    raise TestbedError(
        "no public image registry answers and /etc/apt names no Debian mirror, so base images can be had from neither; "
        "run this on a Debian-like system, or give it access to a registry"
    )


@cache
def nameservers() -> list[str]:
    """Return the name servers that containers can use."""
    return usable_nameservers([Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")])


def usable_nameservers(files: list[Path]) -> list[str]:
    """Return those of the first of *files* that names any but loopback ones, which are of no use to containers."""
    for file in files:
        if file.exists():
            found = re.findall(r"^nameserver\s+(\S+)", file.read_text(), re.MULTILINE)
            usable = [address for address in found if not address.startswith("127.") and address != "::1"]
            if usable:
                return usable
    return ["9.9.9.9", "1.1.1.1"]


def pip_conf() -> str:
    """Return a pip configuration with this machine's package index, or '' when it has none of its own."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    return pip_conf_of(subprocess.run(command, check=False, capture_output=True, text=True).stdout)


def pip_conf_of(listed: str) -> str:
    """Return the configuration file for what `pip config list` printed: what builds elsewhere need, and no more."""
    settings = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    kept = {key: settings[key] for key in ("index-url", "trusted-host", "proxy", "timeout") if key in settings}
    return "".join(["[global]\n", *(f"{key} = {value}\n" for key, value in kept.items())]) if kept else ""


def write_ansible_vars() -> None:
    """Write what builds on this machine need (package index, authorities) where the demo's inventory finds it."""
    variables = {}
    if pip_conf():
        path = STATE / "pip.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        # An index of one's own may want credentials.
        path.touch(mode=0o600)
        path.write_text(pip_conf())
        variables["backend_build_pip_conf"] = str(path)
    if CA_BUNDLE.exists():
        variables["backend_build_ca_bundle"] = str(CA_BUNDLE)
    ANSIBLE_VARS.write_text("---\n" + "".join(f"{name}: {value}\n" for name, value in variables.items()))


def remove_ansible_vars() -> None:
    """Remove what `write_ansible_vars` wrote."""
    for file in (STATE / "pip.conf", ANSIBLE_VARS):
        file.unlink(missing_ok=True)
