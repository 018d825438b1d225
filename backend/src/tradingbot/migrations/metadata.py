"""All tables: importing this module imports every domain's models."""

from tradingbot.api_keys.models import ApiKey
from tradingbot.auth.models import RetiredRefreshToken, Session
from tradingbot.core.models import Base
from tradingbot.events.models import EventSequence, StoredEvent
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.inference.models import Prediction
from tradingbot.migrations.models import SchemaCompatibility
from tradingbot.orders.models import Fill, Order
from tradingbot.outbox.models import OutboxRow
from tradingbot.positions.models import AccountHolding, Position
from tradingbot.risk.models import Halt, Refusal
from tradingbot.signals.models import Signal
from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User
from tradingbot.webhooks.models import RejectedAlert

TABLES = (
    User,
    Session,
    RetiredRefreshToken,
    ApiKey,
    ExchangeAccount,
    Strategy,
    Signal,
    RejectedAlert,
    Order,
    Fill,
    Position,
    AccountHolding,
    OutboxRow,
    Halt,
    Refusal,
    Prediction,
    StoredEvent,
    EventSequence,
    SchemaCompatibility,
)

metadata = Base.metadata
