"""GET /health and /health/ready."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from tradingbot import __version__
from tradingbot.core.context import ContextDep
from tradingbot.core.direct_route import DirectEndpoint
from tradingbot.core.errors import UnavailableError
from tradingbot.core.problems import documented
from tradingbot.health import service
from tradingbot.health.schemas import Health, Readiness

router = APIRouter(prefix="/health", tags=["health"])

_HEALTHY = Health(version=__version__).model_dump_json().encode()


async def health(_request: Request) -> Response:
    """Answers as long as the process does; asks nothing else."""
    return Response(_HEALTHY, media_type="application/json")


direct = [DirectEndpoint("/health", health, {"response_model": Health, "tags": ["health"]})]


@router.get("/ready", response_model=Readiness, responses=documented(503))
async def ready(context: ContextDep) -> JSONResponse:
    """Answers 200 if PostgreSQL answers and the schema is at head, else 503 naming what is not.

    Without Redis the status is `degraded`: alerts are taken and orders placed, live events come later.
    """
    checks = await service.readiness(context.database, context.redis)
    failing = {name: state for name, state in checks.items() if state != service.OK}
    if failing.keys() - service.OPTIONAL:
        raise UnavailableError(
            "; ".join(f"{name}: {state}" for name, state in failing.items()), checks=checks
        )
    return JSONResponse({"status": "degraded" if failing else "ready", "checks": checks})
