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
    for path in sorted(Path("/etc/apt").glob("sources.list*")):
        files = sorted(path.glob("*")) if path.is_dir() else [path]
        for file in files:
            for url in re.findall(
                r"(?:URIs:\s*|^deb\s+(?:\[[^]]*\]\s+)?)(https?://\S+)", file.read_text(), re.MULTILINE
            ):
                if re.search(r"/debian/?$", url):
                    return str(url).rstrip("/")
    raise TestbedError(
        "no public image registry answers and /etc/apt names no Debian mirror, so base images can be had from neither; "
        "run this on a Debian-like system, or give it access to a registry"
    )


@cache
def nameservers() -> list[str]:
    """Return the name servers that containers can use: loopback ones are of no use to them."""
    for file in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        if Path(file).exists():
            found = re.findall(r"^nameserver\s+(\S+)", Path(file).read_text(), re.MULTILINE)
            usable = [address for address in found if not address.startswith("127.") and address != "::1"]
            if usable:
                return usable
    return ["9.9.9.9", "1.1.1.1"]


def pip_conf() -> str:
    """Return a pip configuration with this machine's package index, or '' when it has none of its own."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=False, capture_output=True, text=True
    ).stdout
    settings = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    kept = {key: settings[key] for key in ("index-url", "trusted-host", "proxy", "timeout") if key in settings}
    return "".join(["[global]\n", *(f"{key} = {value}\n" for key, value in kept.items())]) if kept else ""


def write_ansible_vars() -> None:
    """Write what builds on this machine need, its package index and authorities, where the demo's inventory finds it."""
    variables = {}
    if pip_conf():
        path = STATE / "pip.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pip_conf())
        variables["backend_build_pip_conf"] = str(path)
    if CA_BUNDLE.exists():
        variables["backend_build_ca_bundle"] = str(CA_BUNDLE)
    ANSIBLE_VARS.write_text("---\n" + "".join(f"{name}: {value}\n" for name, value in variables.items()))


def remove_ansible_vars() -> None:
    """Remove what `write_ansible_vars` wrote."""
    for file in (STATE / "pip.conf", ANSIBLE_VARS):
        file.unlink(missing_ok=True)
