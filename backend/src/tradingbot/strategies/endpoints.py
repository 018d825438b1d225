"""Endpoints under /strategies."""

from uuid import UUID

from fastapi import APIRouter, Response, status

from tradingbot.auth.dependencies import Reader, Trader
from tradingbot.core.context import ContextDep
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit
from tradingbot.strategies import service
from tradingbot.strategies.schemas import (
    SecretIn,
    SecretOut,
    StrategyChanges,
    StrategyCreated,
    StrategyIn,
    StrategyOut,
    StrategyPage,
    WebhookAddress,
)

router = APIRouter(prefix="/strategies", tags=["strategies"])
_NO_STORE = {"Cache-Control": "no-store"}


@router.post("", status_code=status.HTTP_201_CREATED, responses=documented(401, 403, 409, 422, 503))
async def create_strategy(
    context: ContextDep, trader: Trader, response: Response, given: StrategyIn
) -> StrategyCreated:
    """Makes a strategy; its webhook address is in this answer and in no other."""
    settings = context.settings
    async with context.database.transaction() as session:
        strategy, token = await service.make(
            session, trader.user_id, given, settings.secret_key.get_secret_value()
        )
    response.headers.update(_NO_STORE)
    shown = StrategyOut.model_validate(strategy)
    return StrategyCreated(webhook_url=service.webhook_url(settings, token), **dict(shown))


@router.get("", responses=documented(401, 403, 422, 503))
async def list_strategies(
    context: ContextDep,
    reader: Reader,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> StrategyPage:
    """Lists your strategies, the newest first."""
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await service.list_page(session, reader.user_id, limit, after)


@router.get("/{strategy_id}", responses=documented(401, 403, 404, 422, 503))
async def get_strategy(context: ContextDep, reader: Reader, strategy_id: UUID) -> StrategyOut:
    """Gives one of your strategies."""
    async with context.database.transaction() as session:
        return StrategyOut.model_validate(await service.get(session, reader.user_id, strategy_id))


@router.patch("/{strategy_id}", responses=documented(401, 403, 404, 409, 422, 503))
async def change_strategy(
    context: ContextDep, trader: Trader, strategy_id: UUID, given: StrategyChanges
) -> StrategyOut:
    """Changes what is named, and nothing else; null clears a limit. `is_active` switches it on and off."""
    async with context.database.transaction() as session:
        strategy = await service.get(session, trader.user_id, strategy_id, change=True)
        await service.change(session, strategy, given)
        return StrategyOut.model_validate(strategy)


@router.delete(
    "/{strategy_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def delete_strategy(context: ContextDep, trader: Trader, strategy_id: UUID) -> None:
    """Deletes a strategy that has no orders, with its signals. One that has some can be switched off."""
    async with context.database.transaction() as session:
        await service.remove(session, trader.user_id, strategy_id)


@router.post("/{strategy_id}/webhook-token", responses=documented(401, 403, 404, 422, 503))
async def rotate_webhook_token(
    context: ContextDep, trader: Trader, response: Response, strategy_id: UUID
) -> WebhookAddress:
    """Gives the strategy a new webhook address; the old one is dead at once."""
    settings = context.settings
    async with context.database.transaction() as session:
        strategy = await service.get(session, trader.user_id, strategy_id, change=True)
        token = await service.rotate_token(session, strategy, settings.secret_key.get_secret_value())
    response.headers.update(_NO_STORE)
    return WebhookAddress(webhook_url=service.webhook_url(settings, token))


@router.post("/{strategy_id}/secret", responses=documented(401, 403, 404, 422, 503))
async def set_secret(
    context: ContextDep,
    trader: Trader,
    response: Response,
    strategy_id: UUID,
    given: SecretIn | None = None,
) -> SecretOut:
    """Sets the secret that alerts of this strategy must carry, yours or one that is made here."""
    secret = given.secret.get_secret_value() if given and given.secret else None
    key = context.settings.secret_key.get_secret_value()
    async with context.database.transaction() as session:
        strategy = await service.get(session, trader.user_id, strategy_id, change=True)
        secret = await service.set_secret(session, strategy, secret, key)
    response.headers.update(_NO_STORE)
    return SecretOut(secret=secret)


@router.delete(
    "/{strategy_id}/secret",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(401, 403, 404, 422, 503),
)
async def clear_secret(context: ContextDep, trader: Trader, strategy_id: UUID) -> None:
    """Forgets the strategy's secret: alerts need none from now on, and those that carry it are refused."""
    async with context.database.transaction() as session:
        strategy = await service.get(session, trader.user_id, strategy_id, change=True)
        await service.clear_secret(session, strategy)
