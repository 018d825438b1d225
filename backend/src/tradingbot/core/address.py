"""The parts of a server's URL that may be shown, and the URL in the form that drivers want."""

from urllib.parse import unquote, urlsplit


class Address:
    """Host, port, user and database of a URL: everything but the password."""

    def __init__(self, url: str, default_port: int) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or default_port
        self.user = unquote(parts.username or "")
        self.database = unquote(parts.path.lstrip("/"))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def plain_dsn(url: str) -> str:
    """Gives a PostgreSQL URL without SQLAlchemy's name of the driver."""
    return "postgresql://" + url.split("://", 1)[1]
