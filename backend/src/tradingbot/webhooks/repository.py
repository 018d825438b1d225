"""The statement that stores alerts."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from tradingbot.core.direct import DirectConnection
from tradingbot.webhooks.deduplication import CONTENT

# The statement is the same every time, and so should be its plan: planned once for a connection, and by index
# even if the tables were small then.
SERVER_SETTINGS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}

# One round trip and one commit for all alerts that are waiting: finds the strategies, checks what depends on
# them, stores what is new and queues it.
#
# A key of content counts within the window only. If the signal that has the key is older, its key gets a
# suffix (and the alert is sent to this statement again, which then finds the key free). ON CONFLICT DO UPDATE
# sees what others have committed meanwhile, and waits for who is just about to: of any number of equal alerts
# one is stored. Rows go in by the order of their keys, so that two of these statements cannot wait for each
# other; they are queued in the order that they came in.
_STORE = """
WITH sent AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
        $8::numeric[], $9::numeric[], $10::numeric[], $11::text[], $12::text[], $13::timestamptz[],
        $14::jsonb[], $15::boolean[], $16::boolean[]
    ) WITH ORDINALITY AS sent (
        token_hash, secret_hash, dedup_key, received_at, symbol, action, market_position,
        position_size, quantity, price, order_id, comment, sent_at, payload, has_everyones_secret,
        reduce_only, number
    )
), addressed AS MATERIALIZED (
    SELECT
        sent.*,
        strategies.id AS strategy_id,
        strategies.user_id,
        COALESCE(strategies.max_alert_age, $17::int) AS max_age,
        sent.has_everyones_secret
            OR sent.secret_hash IS NOT DISTINCT FROM strategies.secret_hash AS is_trusted,
        (
            SELECT signals.id FROM signals
            WHERE signals.strategy_id = strategies.id AND signals.dedup_key = sent.dedup_key
                AND (NOT starts_with(sent.dedup_key, $19::text)
                     OR signals.received_at > sent.received_at - $18::interval)
        ) AS earlier_id
    FROM sent
    JOIN strategies ON strategies.webhook_token_hash = sent.token_hash AND strategies.is_active
    JOIN users ON users.id = strategies.user_id AND users.is_active
), judged AS MATERIALIZED (
    SELECT
        addressed.*,
        COALESCE(sent_at < received_at - make_interval(secs => max_age), false) AS is_stale
    FROM addressed
), new AS MATERIALIZED (
    SELECT DISTINCT ON (strategy_id, dedup_key) * FROM judged
    WHERE is_trusted AND NOT is_stale AND earlier_id IS NULL
    ORDER BY strategy_id, dedup_key, number
), stored AS (
    INSERT INTO signals (
        user_id, strategy_id, dedup_key, symbol, action, market_position, position_size, quantity, price,
        order_id, comment, sent_at, received_at, payload, reduce_only
    )
    SELECT
        user_id, strategy_id, dedup_key, symbol, action, market_position, position_size, quantity, price,
        order_id, comment, sent_at, received_at, payload, reduce_only
    FROM new ORDER BY strategy_id, dedup_key
    ON CONFLICT (strategy_id, dedup_key) DO UPDATE
        SET dedup_key = signals.dedup_key || ':' || EXTRACT(epoch FROM signals.received_at)
        WHERE starts_with(excluded.dedup_key, $19::text)
            AND signals.received_at <= excluded.received_at - $18::interval
    RETURNING id, strategy_id, dedup_key
), kept AS MATERIALIZED (
    SELECT new.number, stored.strategy_id, new.symbol, stored.id
    FROM new JOIN stored USING (strategy_id, dedup_key)
), queued AS (
    INSERT INTO outbox (task, strategy_id, symbol, signal_id)
    SELECT 'signal', strategy_id, market_of(symbol), id FROM kept ORDER BY number
)
SELECT judged.number, judged.strategy_id, is_trusted, is_stale, max_age, earlier_id, kept.id AS new_id
FROM judged LEFT JOIN kept USING (number)
"""


class NewAlert(NamedTuple):
    """An alert as it is stored, and what it shows. `secret_hash` is that of any secret but WEBHOOK_SECRET.

    `payload` is JSON. The fields are in the order of the statement's parameters.
    """

    token_hash: str
    secret_hash: str | None
    dedup_key: str
    received_at: datetime
    symbol: str
    action: str | None
    market_position: str | None
    position_size: Decimal | None
    quantity: Decimal | None
    price: Decimal | None
    order_id: str | None
    comment: str | None
    sent_at: datetime | None
    payload: str
    has_everyones_secret: bool
    reduce_only: bool


class Verdict(NamedTuple):
    """What came of an alert. Trusted, not stale, and no id: another one was quicker, ask again."""

    strategy_id: UUID
    is_trusted: bool
    is_stale: bool
    max_age: int
    earlier_id: UUID | None
    new_id: UUID | None

    @property
    def is_final(self) -> bool:
        """Tells whether asking again would change nothing."""
        return not self.is_trusted or self.is_stale or self.earlier_id is not None or self.new_id is not None


async def store(
    connection: DirectConnection, alerts: Sequence[NewAlert], window: timedelta, max_age: int
) -> list[Verdict | None]:
    """Stores those that are new, trusted and fresh, each with its row in the outbox, and commits.

    `max_age` (seconds) is for strategies that have none of their own. None: no active strategy has the token.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: all or none may be stored.
    """
    columns = [list(column) for column in zip(*alerts, strict=True)]
    verdicts: list[Verdict | None] = [None] * len(alerts)
    for row in await connection.fetch(_STORE, *columns, max_age, window, CONTENT):
        verdicts[row["number"] - 1] = Verdict(*row[1:])
    return verdicts


async def prepare(connection: DirectConnection) -> None:
    """Opens the connection and has the statement planned on it, as the first alert would.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: it is open or planned later.
    """
    columns: list[list[object]] = [[] for _ in NewAlert._fields]
    await connection.fetch(_STORE, *columns, 0, timedelta(), CONTENT)
