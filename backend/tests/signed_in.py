"""Headers of a user who has signed in, without the password."""

import secrets
from datetime import timedelta

from tradingbot.auth import access_tokens, repository
from tradingbot.auth.access_tokens import Claims
from tradingbot.core.database import Database
from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.users import service as users


async def sign_in(settings: Settings, email: str, *, is_admin: bool = False) -> dict[str, str]:
    """Starts a session of the user, who is made if missing."""
    database = Database(settings)
    async with database.transaction() as session:
        user = await users.get_or_create(session, email)
        user.is_admin = is_admin
        values = {
            "user_id": user.id,
            "token_hash": secrets.token_hex(32),
            "expires_at": utc_now() + timedelta(hours=1),
        }
        session_id = await repository.add(session, values)
    await database.close()
    return {"Authorization": f"Bearer {access_tokens.issue(settings, Claims(user.id, session_id))}"}
