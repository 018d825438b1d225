"""`tradingbot serve`: seven steps to a running web server."""

import argparse
import asyncio

import structlog
import uvicorn

from tradingbot.cli.steps import STEP_ERRORS, startup_steps
from tradingbot.cli.supervisor import ForkingSupervisor
from tradingbot.core.logging import configure_logging
from tradingbot.core.metrics_files import shared_counts
from tradingbot.core.refusal import load
from tradingbot.core.settings import Settings
from tradingbot.events.protocol import LARGEST_MESSAGE

log = structlog.stdlib.get_logger("tradingbot.serve")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: none."""
    parser.description = (
        "Starts the web server, after six checked steps. Does not migrate: a schema that is not at head is"
        " logged, and /api/v1/health/ready answers 503 until `tradingbot migrate` has run. Redis may be away."
    )
    parser.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Goes through the steps; gives 1 after logging the one that failed."""
    settings = load(Settings)
    configure_logging(settings.log_level)
    if not asyncio.run(_prepare(settings)):
        return 1
    log.info("start the web server", step="7/7", port=settings.port, workers=settings.workers)
    config = uvicorn.Config(
        "tradingbot.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        ws="tradingbot.events.protocol:LiveProtocol",
        ws_max_size=LARGEST_MESSAGE,
        ws_ping_interval=settings.websocket_ping_interval,
        ws_ping_timeout=settings.websocket_ping_interval,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_timeout,
        timeout_graceful_shutdown=settings.shutdown_timeout,
        timeout_worker_healthcheck=30,
    )
    with shared_counts(settings.metrics_dir):
        ForkingSupervisor(config, [config.bind_socket()]).run()
    return 0


async def _prepare(settings: Settings) -> bool:
    steps = startup_steps(settings, settings.startup_timeout)
    for number, step in enumerate(steps, start=1):
        place = f"{number}/{len(steps) + 1}"
        try:
            result = await step.run()
        except STEP_ERRORS as error:
            if step.required:
                log.error(step.name, step=place, problem=str(error))
                return False
            log.warning(step.name, step=place, problem=str(error))
        else:
            log.info(step.name, step=place, result=result)
    return True
