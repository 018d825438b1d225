"""Users by their e-mail address, and what their passwords have to be like."""

import re

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.users import repository
from tradingbot.users.models import User

# Printable ASCII: what two spellings of one letter are is not for us to judge.
_EMAIL = re.compile(r"[!-?A-~]{1,64}@[!-?A-~]{1,189}")
MAX_EMAIL = 254
MIN_PASSWORD = 12
MAX_PASSWORD = 256
# What is judged of a password: the time that it takes grows fast with the length.
_JUDGED_LENGTH = 24
# Of zxcvbn's scores from 0 to 4: more than a million guesses.
_MIN_SCORE = 2


def normalise_email(email: str) -> str:
    """Gives the address in the form that is stored.

    Raises:
        ValueError: not an e-mail address.
    """
    if not _EMAIL.fullmatch(email):
        raise ValueError("not an e-mail address")
    return email.lower()


def check_password(password: str, email: str) -> None:
    """See whether a password may be set: long enough, and not a common one (NIST SP 800-63B, 5.1.1.2).

    It takes some 10 ms, and 0.7 s for one that is made to take long. Not to be called in two threads
    at once: zxcvbn keeps what it is told of a user in its module.

    Raises:
        ValueError: saying why not.
    """
    if len(password) < MIN_PASSWORD:
        raise ValueError(f"a password has at least {MIN_PASSWORD} characters")
    if len(password) > MAX_PASSWORD:
        raise ValueError(f"a password has at most {MAX_PASSWORD} characters")
    lowered = password.strip().lower()
    if lowered in (email, email.partition("@")[0]):
        raise ValueError("a password is not the e-mail address")
    if len(set(lowered)) < 4:
        raise ValueError("a password has at least 4 different characters")
    # Its lists are 12 MB in memory: for who sets passwords.
    from zxcvbn import zxcvbn

    try:
        guess = zxcvbn(password[:_JUDGED_LENGTH], [email, *email.split("@"), "tradingbot"])
    except ValueError:  # it reads a number where a line ends: no list has such a password
        return
    if guess["score"] < _MIN_SCORE:
        raise ValueError(
            "a password is not one that many people have, or a simple change of it: take four words in a row"
            " that nobody would guess"
        )


async def get_or_create(session: AsyncSession, email: str) -> User:
    """Gives the user with this address, making one (without a password) if there is none."""
    return await repository.get_or_create(session, normalise_email(email))
