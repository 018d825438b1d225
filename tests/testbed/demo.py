"""`make demo`: a throwaway host with the whole stack, deployed by site.yml as on a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

from . import __main__ as testbed
from . import engine, hosts, registry
from .shell import ROOT, STATE, TestbedError, fail, say, step

NAME = "demo"
INVENTORY = ROOT / "inventories" / "demo"
HOST_VARS = INVENTORY / "host_vars" / "demo.yml"
CREDENTIALS = STATE / "demo.json"
# There when the demo made the registry and the images, and not a test run.
MADE_TEST_BED = STATE / "made-by-demo"
HTTP_PORT = int(os.environ.get("DEMO_HTTP_PORT", "8080"))
HTTPS_PORT = int(os.environ.get("DEMO_HTTPS_PORT", "8443"))
USER = "demo@example.com"


def up() -> None:
    """Make the host, deploy the stack, send one alert through it, and say what to try next."""
    started = time.monotonic()
    if not (engine.answers() and registry.is_there()):
        MADE_TEST_BED.parent.mkdir(parents=True, exist_ok=True)
        MADE_TEST_BED.touch()
    testbed.up()
    host = hosts.create(NAME, publish={80: HTTP_PORT, 443: HTTPS_PORT})
    if (host.ports.get("80"), host.ports.get("443")) != (HTTP_PORT, HTTPS_PORT):
        raise TestbedError(
            f"the demo is there already, with other ports ({host.ports}); "
            "`make demo-down` first, or leave the ports out"
        )
    write_host_vars(host)
    changed = deploy()
    made = not credentials_work()
    if made:
        make_credentials(host)
        send_first_alert()
    tell(changed, made, time.monotonic() - started)


def down() -> None:
    """Remove the host and what the demo wrote; also the test bed, when the demo made it and no other host uses it."""
    if engine.answers():
        hosts.remove(NAME)
        if MADE_TEST_BED.exists() and not hosts.names():
            testbed.down()
    for file in (CREDENTIALS, HOST_VARS, MADE_TEST_BED):
        file.unlink(missing_ok=True)
    shutil.rmtree(INVENTORY / ".secrets", ignore_errors=True)
    say("the demo is gone; the Docker engine and .venv stay")


def write_host_vars(host: hosts.Host) -> None:
    """Write the ports that were chosen where the demo's inventory finds them."""
    HOST_VARS.parent.mkdir(exist_ok=True)
    HOST_VARS.write_text(f"---\ndemo_ssh_port: {host.ssh_port}\ndemo_https_port: {HTTPS_PORT}\n")


def deploy() -> int:
    """Run site.yml as a user would, showing its output. Returns the number of changes."""
    command = ["ansible-playbook", "site.yml", "-i", "inventories/demo"]
    say(f"running {' '.join(command)} (the first time takes a few minutes)")
    changed = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as play:
        assert play.stdout
        for line in play.stdout:
            print(line, end="", flush=True)
            recap = re.search(r"ok=\d+\s+changed=(\d+)", line)
            changed += int(recap.group(1)) if recap else 0
    if play.returncode != 0:
        raise TestbedError(
            "site.yml did not get through: its last messages above say why. `make demo` goes on from there"
        )
    return changed


def tradingbot(host: hosts.Host, *arguments: str) -> dict[str, str]:
    """Run the backend's own command line on the host and return what it made."""
    remote = [
        "sudo",
        "docker",
        "compose",
        "--project-directory",
        "/opt/tradingbot",
        "exec",
        "-T",
        "backend",
        "tradingbot",
    ]
    done = subprocess.run(
        [*hosts.ssh(host), *remote, *arguments, "--json"], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise TestbedError(f"`tradingbot {' '.join(arguments)}` failed on the host: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def make_credentials(host: hosts.Host) -> None:
    """Make a strategy with its webhook address and an API key, and keep them where only this user reads them."""
    name = f"demo-{time.strftime('%Y%m%dT%H%M%S')}"
    credentials = {
        "webhook_url": tradingbot(host, "strategy", "create", "--user", USER, "--name", name)["webhook_url"],
        "api_key": tradingbot(host, "api-key", "create", "--user", USER, "--name", name)["api_key"],
    }
    CREDENTIALS.touch(mode=0o600)
    CREDENTIALS.write_text(json.dumps(credentials, indent=2) + "\n")


def credentials_work() -> bool:
    """Tell whether there are credentials, and the stack knows them: a host made anew does not."""
    if not CREDENTIALS.exists():
        return False
    try:
        signals(json.loads(CREDENTIALS.read_text())["api_key"])
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return False
        raise
    return True


def signals(api_key: str) -> str:
    """Return the signals that the API lists."""
    return request(f"https://127.0.0.1:{HTTPS_PORT}/api/v1/signals", headers={"X-API-Key": api_key})


def request(url: str, *, body: dict[str, object] | None = None, headers: dict[str, str] | None = None) -> str:
    """Return the answer of the stack. The certificate is self-signed, and the way is loopback."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(
        urllib.request.Request(url, data, headers or {}), timeout=10, context=context
    ) as answer:
        return str(answer.read().decode())


def send_first_alert() -> None:
    """Send an alert as TradingView does, and read it back through the API. Raises TestbedError when it is not there."""
    credentials = json.loads(CREDENTIALS.read_text())
    alert: dict[str, object] = {
        "symbol": "BTCUSDT",
        "action": "buy",
        "price": "67250.5",
        "order_id": f"demo-{time.time_ns()}",
    }
    with step("sending an alert through nginx and reading it back"):
        # TradingView sends text/plain when the message is not valid JSON, and people paste what they like.
        request(credentials["webhook_url"], body=alert, headers={"Content-Type": "text/plain"})
        listed = signals(credentials["api_key"])
    if "BTCUSDT" not in listed:
        raise TestbedError(f"the alert was taken in but is not among the signals: {listed}")
    print(listed, flush=True)


def tell(changed: int, made: bool, seconds: float) -> None:
    """Print where the stack answers and what to try."""
    key = '$(python3 -c \'import json; print(json.load(open(".testbed/demo.json"))["api_key"])\')'
    hook = key.replace("api_key", "webhook_url")
    result = (
        f"{changed} tasks changed something" if changed else "nothing had to be changed: the stack is as it should be"
    )
    print(f"""
The stack runs ({seconds:.0f} s; {result}).

  HTTPS        https://127.0.0.1:{HTTPS_PORT}/            (self-signed certificate: curl -k)
  HTTP         http://127.0.0.1:{HTTP_PORT}/             (sends you to HTTPS)
  API docs     https://127.0.0.1:{HTTPS_PORT}/docs
  credentials  .testbed/demo.json                 (webhook address and API key{", made just now" if made else ""})
  secrets      inventories/demo/.secrets/         (passwords of PostgreSQL and Redis, keys)

Try next:
  curl -k https://127.0.0.1:{HTTPS_PORT}/api/v1/health
  curl -k "{hook}" --json '{{"symbol": "ETHUSDT", "action": "sell", "order_id": "my-first"}}'
  curl -k -H "X-API-Key: {key}" https://127.0.0.1:{HTTPS_PORT}/api/v1/signals
  ansible-playbook playbooks/health.yml -i inventories/demo      (after: source .venv/bin/activate)
  .venv/bin/python -m tests.testbed ssh {NAME}                    (then: cd /opt/tradingbot && sudo docker compose ps)
  make demo                                                      (again: changes nothing)
  make demo-down
""")


if __name__ == "__main__":
    try:
        {"up": up, "down": down}[sys.argv[1]]()
    except TestbedError as failure:
        fail(failure)
