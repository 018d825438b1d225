"""A strategy has one position in a market, however its alerts spell it.

`market_of` says which market a symbol means, as the function of this name in `tradingbot.core.symbols` does.

Positions of one strategy in one market become one, and keep the spelling of the one that holds something, of
several that of the one that changed last:

- what they hold is added up, long positive and short negative, as the account at the exchange has it,
- the average price is that of what was bought or sold in the direction that is left,
- what closed itself in this way is realised at the average prices of both sides,
- realised P&L and fees are added up; the last price is the newest.

Earlier versions live with this: symbols stay as they were sent, so they find the positions that they find
today, where a strategy's alerts have one spelling. Where they have several, such a version knows of a merged
position by one of them alone, and what it trades by another one cannot be booked before this version is back:
its orders stay open, and people are told. Rows that it queues are brought to their market by a trigger, so
that they keep their order among those of this version.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
lint_exceptions = {
    "require-concurrent-index-creation": "a position for each market of a strategy: few rows",
    "ban-new-write-restriction": "the same: it is made in a moment",
}

_MARKET_OF = r"""
CREATE FUNCTION market_of(symbol text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(
        nullif(
            regexp_replace(
                regexp_replace(
                    translate(btrim(symbol), 'abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'),
                    '^[^/:]*:', ''
                ),
                ':[^-]*|\.P$|[/_ -]', '', 'g'
            ),
            ''
        ),
        translate(btrim(symbol), 'abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ')
    )
$$
"""
_QUEUE = (
    """
CREATE FUNCTION outbox_market() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.symbol := market_of(NEW.symbol);
    RETURN NEW;
END
$$
""",
    "CREATE TRIGGER market BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION outbox_market()",
    # What is being worked on is at the head of its queue already.
    """
UPDATE outbox SET symbol = market_of(symbol) WHERE id IN (
    SELECT id FROM outbox WHERE symbol <> market_of(symbol) FOR UPDATE SKIP LOCKED
)
""",
)
# Of long l at average a and short s at average b, min(l, s) is closed: (b - a) for each.
_MERGE = """
WITH ranked AS (
    SELECT
        positions.*,
        market_of(symbol) AS market,
        row_number() OVER (
            PARTITION BY strategy_id, market_of(symbol) ORDER BY quantity = 0, updated_at DESC, id
        ) AS place
    FROM positions
), sums AS (
    SELECT
        strategy_id,
        market,
        count(*) AS spellings,
        sum(quantity) AS quantity,
        sum(quantity) FILTER (WHERE quantity > 0) AS long,
        -sum(quantity) FILTER (WHERE quantity < 0) AS short,
        sum(quantity * average_price) FILTER (WHERE quantity > 0) AS long_cost,
        -sum(quantity * average_price) FILTER (WHERE quantity < 0) AS short_cost,
        sum(realised_pnl) AS realised_pnl,
        sum(fees) AS fees,
        (array_agg(last_price ORDER BY last_price = 0, last_price_at DESC))[1] AS last_price,
        (array_agg(last_price_at ORDER BY last_price = 0, last_price_at DESC))[1] AS last_price_at,
        (array_agg(last_price_source ORDER BY last_price = 0, last_price_at DESC))[1] AS last_price_source,
        max(min_quantity) AS min_quantity
    FROM ranked GROUP BY strategy_id, market HAVING count(*) > 1
), gone AS (
    DELETE FROM positions USING ranked JOIN sums USING (strategy_id, market)
    WHERE positions.id = ranked.id AND ranked.place > 1
)
UPDATE positions SET
    quantity = sums.quantity,
    average_price = CASE
        WHEN sums.quantity > 0 THEN sums.long_cost / sums.long
        WHEN sums.quantity < 0 THEN sums.short_cost / sums.short
        ELSE 0
    END,
    realised_pnl = sums.realised_pnl + coalesce(
        least(sums.long, sums.short) * (sums.short_cost / sums.short - sums.long_cost / sums.long), 0
    ),
    fees = sums.fees,
    last_price = sums.last_price,
    last_price_at = sums.last_price_at,
    last_price_source = sums.last_price_source,
    min_quantity = sums.min_quantity,
    updated_at = now()
FROM ranked JOIN sums USING (strategy_id, market)
WHERE positions.id = ranked.id AND ranked.place = 1
"""


def upgrade() -> None:
    """Go forward."""
    op.execute(_MARKET_OF)
    for statement in _QUEUE:
        op.execute(statement)
    # Nobody opens another spelling in between, nor locks a row that is merged; who reads goes on.
    op.execute("LOCK TABLE positions IN EXCLUSIVE MODE")
    op.execute(_MERGE)
    op.create_index(
        "uq_positions_strategy_id_market",
        "positions",
        ["strategy_id", sa.text("market_of(symbol)")],
        unique=True,
    )


def downgrade() -> None:
    """Go back; what was merged stays so."""
    op.drop_index("uq_positions_strategy_id_market", "positions")
    op.execute("DROP TRIGGER market ON outbox")
    op.execute("DROP FUNCTION outbox_market()")
    op.execute("DROP FUNCTION market_of(text)")
