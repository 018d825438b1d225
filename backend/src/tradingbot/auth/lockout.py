"""Lock-out: who fails too often has to wait, whichever worker is asked.

Attempts are counted in Redis before the password is looked at, so that many at once are counted too, and
forgiven when the password was right. Counted are the account (existing or not: the answer is the same) by
the address that asks, all attempts of that address, and all attempts at the account; an IPv6 address counts
by its /64, which is what one customer has. So a stranger cannot lock somebody out with a handful of wrong
passwords, and many strangers cannot guess for ever. A count ends LOGIN_LOCKOUT_SECONDS after its first
attempt, a full one that long after its last.

While Redis does not answer, each worker counts by itself, in bounded memory: an attacker then has
LOGIN_ATTEMPTS for each worker instead of for all, and nobody is kept out by the outage.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tradingbot.core.errors import TooManyRequestsError
from tradingbot.core.redis import PREFIX
from tradingbot.core.settings import Settings
from tradingbot.core.tasks import within
from tradingbot.core.tokens import derive_key, hash_token

# Times LOGIN_ATTEMPTS: many people may share an address, and strangers must not lock somebody out cheaply.
ADDRESS_FACTOR = 4
ACCOUNT_FACTOR = 20
_PATIENCE = 0.5
_LOCAL_COUNTERS = 10_000
_REDIS_ERRORS = (RedisError, OSError, TimeoutError)

log = structlog.stdlib.get_logger("tradingbot.auth")


class _Counter(NamedTuple):
    key: str
    limit: int


class _Count(NamedTuple):
    """How many attempts, and in how many seconds they are forgotten."""

    value: int
    ends_in: int


class Attempts:
    """Counts attempts to sign in and to register."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._limit = settings.login_attempts
        self._seconds = settings.login_lockout_seconds
        self._key = _key(settings)
        self._local = _LocalCounts(self._seconds)
        self._failing = False

    async def begin(self, email: str, address: str | None) -> None:
        """Counts an attempt to give the password of an account.

        Raises:
            TooManyRequestsError: there were too many for this account, or from this address.
        """
        await self._count(self._of_login(email, address))

    async def succeeded(self, email: str, address: str | None) -> None:
        """Forgives this address its attempts at the account, and of the other counts the last one."""
        both, *others = self._of_login(email, address)
        self._local.forget(both.key)
        for counter in others:
            self._local.take_back(counter.key)
        await self._forgive([counter.key for counter in others], forgotten=[both.key])

    async def take_back(self, email: str, address: str | None) -> None:
        """Forgives the last attempt: the password was not looked at."""
        keys = [counter.key for counter in self._of_login(email, address)]
        for key in keys:
            self._local.take_back(key)
        await self._forgive(keys)

    async def begin_registration(self, address: str | None) -> None:
        """Counts an attempt to register.

        Raises:
            TooManyRequestsError: there were too many from this address.
        """
        await self._count([self._of_address("register", address)])

    def _of_login(self, email: str, address: str | None) -> list[_Counter]:
        account = _account(email, self._key)
        return [
            _Counter(f"{account}:{_network(address)}", self._limit),
            _Counter(account, self._limit * ACCOUNT_FACTOR),
            self._of_address("login", address),
        ]

    def _of_address(self, what: str, address: str | None) -> _Counter:
        return _Counter(f"{PREFIX}{what}:address:{_network(address)}", self._limit * ADDRESS_FACTOR)

    async def _count(self, counters: Sequence[_Counter]) -> None:
        try:
            counts = await within(_PATIENCE, self._count_in_redis(counters))
            self._failing = False
        except _REDIS_ERRORS as error:
            self._note_failure(error)
            counts = [self._local.add(counter) for counter in counters]
        counted = list(zip(counts, counters, strict=True))
        full = [count for count, counter in counted if count.value > counter.limit]
        if not full:
            return
        # What one count refuses is no attempt for the others: else one address, refused again and again,
        # would fill the count of the whole account.
        others = [counter.key for count, counter in counted if count.value <= counter.limit]
        for key in others:
            self._local.take_back(key)
        await self._forgive(others)
        wait = max(count.ends_in for count in full)
        raise TooManyRequestsError("Too many attempts; wait before the next one.", retry_after=max(wait, 1))

    async def _count_in_redis(self, counters: Sequence[_Counter]) -> list[_Count]:
        async with self._redis.pipeline(transaction=True) as pipeline:
            for counter in counters:
                pipeline.set(counter.key, 0, ex=self._seconds, nx=True)
                pipeline.incr(counter.key)
                pipeline.ttl(counter.key)
            answers = await pipeline.execute()
        counts = [
            _Count(int(value), int(ends_in))
            for value, ends_in in zip(answers[1::3], answers[2::3], strict=True)
        ]
        for count, counter in zip(counts, counters, strict=True):
            if count.value == counter.limit:
                await self._redis.expire(counter.key, self._seconds)
        return counts

    async def _forgive(self, keys: Sequence[str], forgotten: Sequence[str] = ()) -> None:
        try:
            await within(_PATIENCE, self._forgive_in_redis(keys, forgotten))
        except _REDIS_ERRORS as error:
            self._note_failure(error)

    async def _forgive_in_redis(self, keys: Sequence[str], forgotten: Sequence[str]) -> None:
        async with self._redis.pipeline(transaction=True) as pipeline:
            for key in forgotten:
                pipeline.delete(key)
            for key in keys:
                # A counter that has ended must not come back without an end.
                pipeline.set(key, 1, ex=self._seconds, nx=True)
                pipeline.decr(key)
            await pipeline.execute()

    def _note_failure(self, error: Exception) -> None:
        if not self._failing:
            log.warning("sign-in attempts are counted by this worker alone", reason=type(error).__name__)
        self._failing = True


async def unlock(redis: Redis, settings: Settings, email: str) -> int:
    """Forget all attempts at an account, from wherever; return how many counts that were.

    Raises:
        RedisError: Redis does not answer. Counts that a worker keeps for itself are not reached.
    """
    account = _account(email, _key(settings))
    keys = [key async for key in redis.scan_iter(match=f"{account}*", count=1000)]
    return int(await redis.delete(*keys)) if keys else 0


def _key(settings: Settings) -> str:
    return derive_key(settings.secret_key.get_secret_value(), "lock-out").hex()


def _account(email: str, key: str) -> str:
    # Who reads Redis learns no e-mail addresses.
    return f"{PREFIX}login:account:{hash_token(email, key)}"


class _LocalCounts:
    """What one worker counts by itself; the oldest counters give way to new ones."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def add(self, counter: _Counter) -> _Count:
        """Counts one more."""
        now = time.monotonic()
        value, ends = self._counts.pop(counter.key, (0, 0.0))
        if ends <= now:
            value, ends = 0, now + self._seconds
        value += 1
        if value == counter.limit:
            ends = now + self._seconds
        self._counts[counter.key] = (value, ends)
        if len(self._counts) > _LOCAL_COUNTERS:
            self._counts.popitem(last=False)
        return _Count(value, int(ends - now))

    def forget(self, key: str) -> None:
        """Forgets a counter."""
        self._counts.pop(key, None)

    def take_back(self, key: str) -> None:
        """Counts one less."""
        if key in self._counts:
            value, ends = self._counts[key]
            self._counts[key] = (value - 1, ends)


def _network(address: str | None) -> str:
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or f"{IPv6Address(int(parsed) >> 64 << 64)}/64")
    return str(parsed)
