"""Passwords as Argon2id hashes (RFC 9106), made in threads of their own.

The cost is the one that OWASP's Password Storage Cheat Sheet recommends: 19 MiB, two iterations, one lane. A
hash takes some 30 ms of a processor and these 19 MiB, so each process makes only a few at once and lets a
bounded number wait.
"""

import asyncio
import secrets
import unicodedata
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from tradingbot.core.errors import UnavailableError

_MEMORY_KIB = 19 * 1024
_ITERATIONS = 2
_LANES = 1
_SALT_BYTES = 16
_HASH_BYTES = 32

ResultT = TypeVar("ResultT")


class Verdict(NamedTuple):
    """Whether the password is right; `new_hash` is to be stored if the old one was made at another cost."""

    right: bool
    new_hash: str | None = None


class Passwords:
    """Hashes and verifies, `at_once` at a time with `waiting` more in the queue."""

    def __init__(self, at_once: int = 1, waiting: int = 32) -> None:
        hasher = Argon2Hasher(
            time_cost=_ITERATIONS,
            memory_cost=_MEMORY_KIB,
            parallelism=_LANES,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
        )
        self._hasher = PasswordHash((hasher,))
        self._nobody = _unmatchable_hash()
        self._executor = ThreadPoolExecutor(at_once, thread_name_prefix="passwords")
        self._limit = at_once + waiting
        self._pending = 0

    async def hash(self, password: str) -> str:
        """Gives what is stored of a password.

        Raises:
            UnavailableError: too many are waiting already.
        """
        return await self.run(lambda: self._hasher.hash(_normalised(password)))

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Compares a password with what is stored; with None it works as long, and is wrong.

        Raises:
            UnavailableError: too many are waiting already.
        """
        expected = stored or self._nobody
        right, new_hash = await self.run(
            lambda: self._hasher.verify_and_update(_normalised(password), expected)
        )
        return Verdict(right and stored is not None, new_hash)

    def close(self) -> None:
        """Ends the threads; what waits is not done any more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], ResultT]) -> ResultT:
        """Do other work on passwords that takes long, in the same threads; return its result.

        Raises:
            UnavailableError: too many are waiting already.
        """
        if self._pending >= self._limit:
            raise UnavailableError("Too many passwords are being checked.", retry_after=1)
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._pending -= 1


def _normalised(password: str) -> bytes:
    # The same key presses may arrive as different code points from another system (NIST SP 800-63B, 5.1.1.2).
    # JSON may hold half a surrogate pair, which is just a wrong password.
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


def _unmatchable_hash() -> str:
    """Gives a hash of our cost that belongs to no password, without the work of making one."""
    salt, digest = (
        b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (_SALT_BYTES, _HASH_BYTES)
    )
    return f"$argon2id$v=19$m={_MEMORY_KIB},t={_ITERATIONS},p={_LANES}${salt}${digest}"
