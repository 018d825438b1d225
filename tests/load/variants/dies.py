#!/opt/tradingbot/bin/python
"""`tradingbot`, but its web server is killed a second after it has taken its first alert: healthy until it is used."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

ACCEPTED = re.compile(r'^tradingbot_webhook_alerts_total\{outcome="accepted"\} [1-9]', re.MULTILINE)


def has_taken_an_alert() -> bool:
    """Ask the server's own metrics."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:8001/metrics", timeout=2) as answer:
            return bool(ACCEPTED.search(answer.read().decode()))
    except OSError:
        return False


command = [sys.executable, "-m", "tradingbot", *sys.argv[1:]]
if sys.argv[1:2] != ["serve"]:
    os.execv(sys.executable, command)
server = subprocess.Popen(command, start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: server.terminate())
while server.poll() is None:
    time.sleep(0.2)
    if has_taken_an_alert():
        time.sleep(1)
        os.killpg(server.pid, signal.SIGKILL)
        sys.exit("died, as it was made to")
sys.exit(server.returncode)
