"""`tradingbot worker`: turns queued signals into orders."""

import argparse
import asyncio

import structlog
import uvloop

from tradingbot.cli.steps import STEP_ERRORS, StepError, check_schema, startup_steps
from tradingbot.core.logging import configure_logging
from tradingbot.core.metrics import serve_metrics, set_build_info
from tradingbot.core.refusal import load
from tradingbot.core.sentry import reporting_errors
from tradingbot.core.settings import Settings
from tradingbot.orders.outcome import Steps, no_steps
from tradingbot.worker.main import opener
from tradingbot.worker.main import run as run_worker

log = structlog.stdlib.get_logger("tradingbot.worker")

_SCHEMA_PAUSE = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: none."""
    parser.description = (
        "Starts the worker after the same checked steps as `serve`. It does not migrate: it waits until the"
        " schema is at head. Redis may be away."
    )
    parser.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Goes through the steps and works until SIGTERM; gives 1 after logging a step that failed."""
    settings = load(Settings)
    configure_logging(settings.log_level)
    with (
        reporting_errors(settings, "worker"),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(start(settings))


async def start(settings: Settings, told: Steps = no_steps) -> int:
    """Prepares, then works; gives the exit code. `told` is for tests: see `orders.outcome.Steps`."""
    if not await _prepare(settings):
        return 1
    await _wait_for_schema(settings)
    try:
        serve_metrics(settings.worker_metrics_port)
    except OSError as error:
        log.error("the metrics port is taken", port=settings.worker_metrics_port, problem=error.strerror)
        return 1
    set_build_info()
    return await run_worker(settings, opener, told)


async def _prepare(settings: Settings) -> bool:
    for step in startup_steps(settings, settings.startup_timeout):
        try:
            result = await step.run()
        except STEP_ERRORS as error:
            if step.required:
                log.error(step.name, problem=str(error))
                return False
            log.warning(step.name, problem=str(error))
        else:
            log.info(step.name, result=result)
    return True


async def _wait_for_schema(settings: Settings) -> None:
    """Waits for as long as it takes, for a migration is somebody else's work; says so when it changes."""
    said = None
    while True:
        try:
            await check_schema(settings)
        except STEP_ERRORS as error:
            problem = str(error) if isinstance(error, StepError) else type(error).__name__
            if problem != said:
                log.warning("waiting for the schema", problem=problem)
            said = problem
        else:
            return
        await asyncio.sleep(_SCHEMA_PAUSE)
