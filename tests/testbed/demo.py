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
from typing import Any

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
# Made by tools/make_tiny_lstm.py of the backend; its weights are random.
MODEL = ROOT / ".cache" / "models" / "tiny-lstm" / "1"
TRADED_WITHIN = 30


def up() -> None:
    """Make the host, deploy the stack, trade a few alerts on paper, show what there is, and say what to try next."""
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
        trade()
    show_all()
    tell(changed, made, time.monotonic() - started)


def down() -> None:
    """Remove the host and what the demo wrote; also the test bed, when the demo made it and no other host uses it."""
    if engine.answers():
        hosts.remove(NAME)
        if MADE_TEST_BED.exists() and not hosts.names():
            testbed.down()
    for file in (CREDENTIALS, HOST_VARS, MADE_TEST_BED):
        file.unlink(missing_ok=True)
    for folder in (HOST_VARS.parent, INVENTORY / ".secrets"):
        shutil.rmtree(folder, ignore_errors=True)
    say("the demo is gone; the Docker engine and .venv stay")


def write_host_vars(host: hosts.Host) -> None:
    """Write the ports that were chosen, and where the model is, where the demo's inventory finds them."""
    model = {"name": MODEL.parent.name, "version": MODEL.name, "src": str(MODEL), "active": True}
    found = {
        "demo_ssh_port": host.ssh_port,
        "demo_https_port": HTTPS_PORT,
        "backend_build_extras": ["inference"],
        "backend_models": [model],
    }
    HOST_VARS.parent.mkdir(exist_ok=True)
    # JSON is YAML.
    HOST_VARS.write_text(json.dumps(found, indent=2) + "\n")


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
    done = subprocess.run(
        [*hosts.ssh(host), "sudo", "/usr/local/bin/tradingbot", "exec", "tradingbot", *arguments, "--json"],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise TestbedError(f"`tradingbot {' '.join(arguments)}` failed on the host: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def make_credentials(host: hosts.Host) -> None:
    """Make a strategy with its webhook address and an API key, and keep them where only this user reads them."""
    name = f"demo-{time.strftime('%Y%m%dT%H%M%S')}"
    limits = ["--max-position", "0.1", "--model-name", MODEL.parent.name, "--model-mode", "annotate"]
    credentials = {
        "webhook_url": tradingbot(host, "strategy", "create", "--user", USER, "--name", name, *limits)["webhook_url"],
        "api_key": tradingbot(host, "api-key", "create", "--user", USER, "--name", name)["api_key"],
    }
    CREDENTIALS.touch(mode=0o600)
    CREDENTIALS.write_text(json.dumps(credentials, indent=2) + "\n")


def credentials_work() -> bool:
    """Tell whether there are credentials, and the stack knows them: a host made anew does not."""
    if not CREDENTIALS.exists():
        return False
    try:
        listed(json.loads(CREDENTIALS.read_text())["api_key"], "signals")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return False
        raise
    return True


def asked(api_key: str, what: str) -> dict[str, Any]:
    """Return what the API answers."""
    return dict(json.loads(request(f"https://127.0.0.1:{HTTPS_PORT}/api/v1/{what}", headers={"X-API-Key": api_key})))


def listed(api_key: str, what: str) -> list[dict[str, Any]]:
    """Return the newest of what the API lists."""
    return list(asked(api_key, what)["items"])


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


def alerts() -> list[dict[str, object]]:
    """Return what a strategy might send: a trade, a target that heals what was missed, too much, and a way out."""
    now = time.time_ns()
    long: dict[str, object] = {"symbol": "BTCUSDT", "market_position": "long", "position_size": "0.05"}
    return [
        {"id": f"{now}-1", "symbol": "BTCUSDT", "action": "buy", "quantity": "0.02", "price": "67250.5"},
        {"id": f"{now}-2", "price": "67400", "comment": "hold 0.05, whatever was missed"} | long,
        {"id": f"{now}-3", "price": "67425", "comment": "hold 0.05, once more"} | long,
        {"id": f"{now}-4", "symbol": "BTCUSDT", "action": "buy", "quantity": "5", "price": "67500"},
        {"id": f"{now}-5", "symbol": "BTCUSDT", "action": "sell", "quantity": "0.03", "price": "67900.25"},
    ]


def trade() -> None:
    """Send alerts as TradingView does, one of them twice. Raises TestbedError when they are not traded in time."""
    credentials = json.loads(CREDENTIALS.read_text())
    key = credentials["api_key"]
    sent = alerts()
    with step(f"sending {len(sent)} alerts through nginx, the first of them twice"):
        for alert in (sent[0], *sent):
            # TradingView sends text/plain when the message is not valid JSON, and people paste what they like.
            request(credentials["webhook_url"], body=alert, headers={"Content-Type": "text/plain"})
    with step("waiting until the worker has traded them"):
        deadline = time.monotonic() + TRADED_WITHIN
        while any(signal["status"] == "queued" for signal in listed(key, "signals")):
            if time.monotonic() > deadline:
                raise TestbedError(f"after {TRADED_WITHIN} s there are signals in the queue: is the worker well?")
            # The API takes 60 requests a minute.
            time.sleep(1)
    found = listed(key, "signals")
    if len(found) != len(sent):
        raise TestbedError(f"{len(sent)} different alerts were sent, and {len(found)} signals are stored")


def show_all() -> None:
    """Print the newest signals and orders, and the positions, as tables."""
    key = json.loads(CREDENTIALS.read_text())["api_key"]
    signals = [asked(key, f"signals/{signal['id']}") for signal in listed(key, "signals?limit=8")]
    show("Signals", [signal_row(signal) for signal in signals])
    orders = listed(key, "orders?limit=8")
    columns = ["symbol", "side", "quantity", "filled_quantity", "average_price", "state"]
    show("Orders", [{"time": clock(order["created_at"])} | picked(order, *columns) for order in orders])
    columns = ["symbol", "quantity", "average_price", "realised_pnl", "unrealised_pnl", "fees"]
    show("Positions", [picked(position, *columns) for position in listed(key, "positions")])


def signal_row(signal: dict[str, Any]) -> dict[str, str]:
    """Return what people want to know of a signal: what was wanted, what came of it, what the model thought."""
    wanted = [signal["action"], signal["quantity"]]
    if signal["market_position"]:
        wanted = ["be", signal["market_position"], signal["position_size"]]
    model = signal["prediction"] or {"status": "", "reason": ""}
    outcome = model["status"]
    if outcome == "ok":
        outcome = f"{model['outcome']} {float(model['probabilities'][model['outcome']]):.0%}"
    return {
        "time": clock(signal["received_at"]),
        "symbol": signal["symbol"],
        "alert": " ".join(str(word) for word in wanted if word),
        **picked(signal, "price", "status"),
        "model": outcome,
        "reason": signal["status_reason"] or model["reason"] or "",
    }


def clock(moment: str) -> str:
    """Return the time of day of a time in ISO 8601."""
    return moment[11:19]


def picked(item: dict[str, Any], *columns: str) -> dict[str, str]:
    """Return these fields of *item* as texts."""
    return {column: "" if item[column] is None else str(item[column]) for column in columns}


def show(title: str, rows: list[dict[str, str]]) -> None:
    """Print *rows*, the oldest first, as a table."""
    if not rows:
        print(f"\n{title}: none")
        return
    lines = [[name.upper().replace("_", " ") for name in rows[0]], *(list(row.values()) for row in reversed(rows))]
    widths = [max(len(line[number]) for line in lines) for number in range(len(lines[0]))]
    print(f"\n{title}")
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


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
  curl -k "{hook}" --json '{{"symbol": "ETHUSDT", "action": "sell", "quantity": "0.05", "price": "3100"}}'
  curl -k -H "X-API-Key: {key}" https://127.0.0.1:{HTTPS_PORT}/api/v1/orders
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
