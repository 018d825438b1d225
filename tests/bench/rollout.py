"""A new version under load, in our way and in others: seconds and failed requests, all in one run on one host.

The other ways get an application of their own beside the stack, from the same image, with the same database and web
server image, and the same load: see `Elsewhere`.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from tests.load import plan, running, versions
from tests.load.result import Result
from tests.testbed.hosts import Host
from tests.testbed.shell import TestbedError, step

from . import deploy
from . import host as bench
from .report import Aim, Report, Row

CHAPTER = "Deploys"
USERS = f"rollout-{time.time_ns()}"
RESULT = bench.FOLDER / "load-result.json"
FIRST, SECOND, THIRD = ("9.8.1", "9.8.2", "9.8.3")
FOLDER = "/opt/rollout"
HEALTHY_WITHIN = 120
COMPOSE = """
name: rollout
services:
  web:
    image: nginx:1.30-alpine
    ports: ["8001:8443"]
    volumes: ["./conf:/etc/nginx/conf.d:ro", "/opt/tradingbot/nginx/tls:/tls:ro"]
    networks: [tradingbot]
  app:
    extends: {{file: {release}, service: backend}}
    image: registry:5000/tradingbot-backend:${{APP:-{first}}}
  other:
    extends: {{file: {release}, service: backend}}
    image: registry:5000/tradingbot-backend:${{APP:-{first}}}
    profiles: [two]
networks:
  tradingbot: {{name: tradingbot-network, external: true}}
secrets:
{secrets}
"""
NGINX = """
server {{
    listen 8443 ssl;
    ssl_certificate /tls/live/fullchain.pem;
    ssl_certificate_key /tls/live/privkey.pem;
    access_log off;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-Proto https;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
{to}
}}
map $http_upgrade $connection_upgrade {{ default upgrade; '' ""; }}
"""
# Asked again after a second at the earliest, as a web server that follows a name does.
BY_NAME = "    resolver 127.0.0.11 valid=1s; location / { set $to app; proxy_pass http://$to:8001; }"
TO_APP = "    location / { proxy_pass http://app:8001; }"
TO_OTHER = "    location / { proxy_pass http://other:8001; }"

Taken = tuple[float, Result]


def measure(host: Host, report: Report) -> None:
    """Take all figures. The host runs the stack, and afterwards another version of it."""
    with step("making three versions to deploy"):
        versions.make(host, [versions.Version(number) for number in (FIRST, SECOND, THIRD)])
    target = bench.FOLDER / "load-plan.json"
    stack = plan.make(f"https://127.0.0.1:{bench.HTTPS_PORT}", command_line(host), USERS)
    stack.write(target)
    with step("a deploy that is not measured, for the caches"):
        release(FIRST)
    with step("deploy, rollback and deploy under load"):
        deployed = under_load(target, lambda: release(SECOND))
        back = under_load(target, lambda: deploy.play("playbooks/rollback.yml"))
        again = under_load(target, lambda: release(THIRD))
    with step("health.yml"):
        health = deploy.seconds_of(lambda: deploy.play("playbooks/health.yml"))
    elsewhere = Elsewhere(host)
    plan.Plan(f"https://127.0.0.1:{bench.BACKEND_PORT}", stack.webhooks, stack.api_key, stack.watched).write(target)
    try:
        with step("the same changes in other ways, under the same load"):
            plain = under_load(target, elsewhere.in_place, lambda: elsewhere.begin(BY_NAME))
            rolled = under_load(target, elsewhere.rolled, lambda: elsewhere.begin(BY_NAME))
            hasty = under_load(target, elsewhere.hasty, lambda: elsewhere.begin(TO_APP))
    finally:
        elsewhere.remove()
        target.unlink()
    note(report, "deploy.yml, the image is pulled", deployed, plain, Aim(45))
    note(report, "deploy.yml, once more", again, plain, Aim(45))
    note(report, "rollback.yml", back, plain, Aim(15))
    note(report, "docker-rollout's way", rolled, plain)
    note(report, "reload, SIGTERM at once", hasty, plain)
    note(report, "replaced in place (`up --detach --wait`)", plain)
    report.add(CHAPTER, Row("health.yml", health, "s", aims=(Aim(5),)))


def release(version: str) -> None:
    """Deploy *version* as a user does."""
    image = json.dumps({"backend_image": versions.IMAGE})
    deploy.play("playbooks/deploy.yml", "-e", f"backend_version={version}", "-e", image)


def under_load(target: Path, change: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> Taken:
    """Make a change under load; return its seconds and what the clients saw."""
    prepare()
    with running.load(target, RESULT) as run:
        time.sleep(2)
        seconds = deploy.seconds_of(change)
        # What comes late belongs to it: connections that idle, WebSockets that come back.
        time.sleep(5)
        return seconds, run.stop()


def note(report: Report, what: str, taken: Taken, plain: Taken | None = None, aim: Aim | None = None) -> None:
    """Note how long a change took and what its clients saw."""
    seconds, seen = taken
    baseline, against = (plain[0], "replaced in place") if plain else (None, "")
    report.add(CHAPTER, Row(what, seconds, "s", baseline, against, (aim,) if aim else ()))
    report.add(CHAPTER, Row(f"{what}: failed requests", len(seen.failures), f"of {seen.requests:,d}"))
    lost = sum(close.code != 1012 for close in seen.closes())
    report.add(CHAPTER, Row(f"{what}: WebSockets cut off without 1012", lost, f"of {len(seen.closes())}"))


def command_line(host: Host) -> plan.CommandLine:
    """Return the backend's own command line on the host."""

    def run(*arguments: str) -> dict[str, str]:
        told = bench.compose(host, "exec", "-T", "worker", "tradingbot", *arguments, "--json")
        return dict(json.loads(told))

    return run


class Elsewhere:
    """Our image behind a plain nginx, in a Compose project of its own; each way puts the next version in place."""

    def __init__(self, host: Host) -> None:
        self._host = host
        record = json.loads(bench.on_host(host, "cat", f"{bench.PROJECT}/backend/slots.json"))
        self._release = f"{bench.PROJECT}/backend/releases/{record['slots'][record['active']]}.yaml"
        listed = bench.on_host(host, "docker", "compose", "--file", self._release, "config", "--format", "json")
        secrets = json.dumps(json.loads(listed)["secrets"], indent=2)
        text = COMPOSE.format(release=self._release, first=FIRST, secrets=f"  {secrets}".replace("\n", "\n  "))
        self._write("compose.yaml", text)

    def _write(self, name: str, text: str) -> None:
        path = f"{FOLDER}/{name}"
        self._shell(f"mkdir -p {FOLDER}/conf && printf %s {shlex.quote(text)} > {path}")

    def _shell(self, command: str, timeout: float = 180) -> str:
        return bench.on_host(self._host, "sh", "-c", command, timeout=timeout)

    def _compose(self, arguments: str, version: str = FIRST) -> str:
        return self._shell(f"cd {FOLDER} && APP={version} docker compose --profile two {arguments}")

    def begin(self, to: str) -> None:
        """Start anew with the first version."""
        bench.close_backend(self._host)
        self._compose("down --timeout 1")
        self._write("conf/default.conf", NGINX.format(to=to))
        self._compose("up --detach --wait --quiet-pull app")
        self._compose("up --detach --wait web")

    def in_place(self) -> None:
        """Replace the only container."""
        self._compose("up --detach --wait --no-deps app", SECOND)

    def rolled(self) -> None:
        """docker-rollout: https://github.com/wowu/docker-rollout, its README: scale to two, wait, stop the old one."""
        old = self._compose("ps --quiet app")
        self._compose("up --detach --no-deps --scale app=2 --no-recreate app", SECOND)
        new = next(one for one in self._compose("ps --quiet app").split() if one != old)
        self._until_healthy(new)
        self._shell(f"docker stop {old} && docker rm {old}")

    def hasty(self) -> None:
        """Start another service, reload nginx, and stop the former one at once."""
        self._compose("up --detach --wait --no-deps other", SECOND)
        self._write("conf/default.conf", NGINX.format(to=TO_OTHER))
        self._compose("exec -T web nginx -s reload")
        self._compose("stop app")

    def _until_healthy(self, container: str) -> None:
        until = time.monotonic() + HEALTHY_WITHIN
        while self._shell(f"docker inspect --format '{{{{.State.Health.Status}}}}' {container}") != "healthy":
            if time.monotonic() > until:
                raise TestbedError(f"the second container is not healthy after {HEALTHY_WITHIN} s")
            time.sleep(0.5)

    def remove(self) -> None:
        """Remove all of it."""
        self._shell(f"cd {FOLDER} && docker compose --profile two down --timeout 1; rm -r {FOLDER}")
