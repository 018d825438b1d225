"""All tables: importing this module imports every domain's models."""

from tradingbot.api_keys.models import ApiKey
from tradingbot.auth.models import Session
from tradingbot.core.models import Base
from tradingbot.signals.models import Signal
from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User

TABLES = (User, Session, ApiKey, Strategy, Signal)

metadata = Base.metadata
