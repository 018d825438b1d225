"""Asks a strategy's model about a signal, and keeps what it said."""

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.events.service import EventType, record
from tradingbot.inference import repository
from tradingbot.inference.features import rows_of
from tradingbot.inference.manifest import ModelError
from tradingbot.inference.models import Prediction, PredictionStatus
from tradingbot.inference.registry import Answer, ModelRegistry, failed
from tradingbot.inference.schemas import PredictionOut
from tradingbot.orders.models import Side
from tradingbot.signals.models import Signal
from tradingbot.strategies.models import ModelMode, Strategy


async def assess(
    session: AsyncSession, registry: ModelRegistry, strategy: Strategy, signal: Signal
) -> Prediction | None:
    """Stores what the strategy's model says of the signal; None if the strategy wants no model.

    A signal is assessed once: asked again, what was stored is given back, whatever model is active by then.
    """
    if strategy.model_mode == ModelMode.OFF or strategy.model_name is None:
        return None
    earlier = await repository.find(session, signal.id)
    if earlier is not None:
        return earlier
    answer = await _ask(session, registry, strategy.model_name, signal)
    values = {
        "user_id": signal.user_id,
        "signal_id": signal.id,
        "status": answer.status,
        "model_name": answer.model_name,
        "model_version": answer.version,
        "model_digest": answer.digest,
        "outcome": answer.outcome,
        "probabilities": _as_text(answer),
        "reason": answer.reason,
    }
    is_new = await repository.insert_once(session, values)
    stored = await repository.find(session, signal.id)
    if stored is not None and is_new:
        shown = PredictionOut.model_validate(stored).model_dump(mode="json")
        await record(session, signal.user_id, EventType.PREDICTION, shown)
    return stored


def veto(strategy: Strategy, side: Side, prediction: Prediction | None) -> str | None:
    """Gives why the model stands against an order of this side; None if it does not.

    A strategy in mode `veto` wants its model's agreement, so no answer is a veto too: a model that cannot be
    loaded must not turn a checked strategy into an unchecked one.
    """
    if strategy.model_mode != ModelMode.VETO or prediction is None:
        return None
    name = " ".join(part for part in (prediction.model_name, prediction.model_version) if part)
    if prediction.status != PredictionStatus.OK:
        return f"The model {name} gave no answer ({prediction.status}): {prediction.reason}."
    if prediction.outcome != side:
        return f"The model {name} says {prediction.outcome}, the order is to {side}."
    return None


async def _ask(session: AsyncSession, registry: ModelRegistry, name: str, signal: Signal) -> Answer:
    manifest = await registry.manifest(name)
    if manifest is None:
        return await registry.predict(name, [])
    alerts = await repository.last_alerts(session, signal, manifest.window)
    try:
        rows = rows_of(manifest, alerts)
    except ModelError as error:
        return failed(manifest, str(error))
    return await registry.predict(name, rows)


def _as_text(answer: Answer) -> dict[str, str] | None:
    if answer.probabilities is None:
        return None
    return {str(label): str(value) for label, value in answer.probabilities.items()}
