"""People who sign in, as short as tests want to say it."""

from dataclasses import dataclass
from uuid import UUID

import httpx
from fastapi import FastAPI

from tradingbot.core.database import Database
from tradingbot.core.passwords import Passwords
from tradingbot.core.settings import Settings
from tradingbot.users import repository as users

PASSWORD = "correct horse battery staple"
EMAIL = "trader@mail.test"


@dataclass(frozen=True)
class SignedIn:
    """One session of a user."""

    access_token: str
    refresh_token: str
    session_id: str

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the session's requests."""
        return {"Authorization": f"Bearer {self.access_token}"}


async def make_user(
    settings: Settings, email: str = EMAIL, password: str = PASSWORD, *, is_admin: bool = False
) -> UUID:
    """Stores a user, or gives the one that is there a password."""
    passwords, database = Passwords(), Database(settings)
    password_hash = await passwords.hash(password)
    async with database.transaction() as session:
        await users.get_or_create(session, email)
        user_id = await users.change(session, email, password_hash=password_hash, is_admin=is_admin)
    await database.close()
    passwords.close()
    assert user_id is not None
    return user_id


async def login(client: httpx.AsyncClient, email: str = EMAIL, password: str = PASSWORD) -> httpx.Response:
    """Tries to sign in."""
    return await client.post("/api/v1/auth/login", json={"email": email, "password": password})


async def sign_in(client: httpx.AsyncClient, email: str = EMAIL, password: str = PASSWORD) -> SignedIn:
    """Signs in."""
    return signed_in(await login(client, email, password))


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    """Tries to exchange a refresh token."""
    return await client.post("/api/v1/auth/refresh", json={"refresh_token": token})


def signed_in(answer: httpx.Response) -> SignedIn:
    """Reads the tokens in an answer."""
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    return SignedIn(tokens["access_token"], tokens["refresh_token"], tokens["session_id"])


def from_address(app: FastAPI, address: str) -> httpx.AsyncClient:
    """A client at this address."""
    transport = httpx.ASGITransport(app, client=(address, 50000))
    return httpx.AsyncClient(transport=transport, base_url="http://test")
