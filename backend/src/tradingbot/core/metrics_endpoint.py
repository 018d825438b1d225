"""GET /metrics, for who collects them: not for the outside."""

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from tradingbot.core.context import ContextDep
from tradingbot.core.errors import NotFoundError
from tradingbot.core.metrics import CONTENT_TYPE, exposition

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(request: Request, context: ContextDep) -> Response:
    """Answers in Prometheus' text format; 404 to all who are not in METRICS_NETWORKS.

    A proxy in front of us has an address in these networks, whoever asked it: what it says of its client
    counts too, even if it is not among FORWARDED_ALLOW_IPS.
    """
    peer = request.client.host if request.client else ""
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    addresses = [peer, *(part.strip() for part in forwarded.split(",") if part.strip())]
    if not all(_is_inside(address, context.settings.metrics_networks) for address in addresses):
        raise NotFoundError("Not Found")
    return Response(await run_in_threadpool(exposition), media_type=CONTENT_TYPE)


def _is_inside(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
