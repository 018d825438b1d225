"""Who is at the other end of a connection, as far as it tells."""

from ipaddress import ip_address
from typing import Annotated, NamedTuple

from fastapi import Depends
from starlette.requests import HTTPConnection

_USER_AGENT_LENGTH = 200


class Client(NamedTuple):
    """Address (as a trusted proxy tells it) and program; columns of a session."""

    address: str | None
    user_agent: str | None


def get_client(connection: HTTPConnection) -> Client:
    """Gives address and program of who sent the request."""
    agent = "".join(filter(str.isprintable, connection.headers.get("user-agent", "")))
    return Client(_address(connection), agent[:_USER_AGENT_LENGTH] or None)


def _address(connection: HTTPConnection) -> str | None:
    try:
        return str(ip_address(connection.client.host)) if connection.client else None
    except ValueError:
        return None


ClientDep = Annotated[Client, Depends(get_client)]
