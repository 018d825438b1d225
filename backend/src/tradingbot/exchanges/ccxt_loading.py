"""Imports one exchange of ccxt, when the first account needs it."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from tradingbot.exchanges.base import CredentialsError

_PACKAGE = "ccxt"
_ASYNC = "ccxt.async_support"


class MissingExtraError(CredentialsError):
    """ccxt is not installed: the account cannot be used."""


def exchange_class(name: str) -> Any:
    """Gives ccxt's asynchronous class of an exchange.

    `import ccxt` imports some 200 exchanges, twice, and keeps 45 MB for them. So both packages are entered as
    they are found, without running their __init__, with the names in them that ccxt's base classes import.

    Raises:
        MissingExtraError: ccxt is not installed.
    """
    if _PACKAGE not in sys.modules:
        package = _enter(_PACKAGE)
        errors = importlib.import_module("ccxt.base.errors")
        for error, value in vars(errors).items():
            if isinstance(value, type):
                setattr(package, error, value)
        package.__dict__["Exchange"] = importlib.import_module("ccxt.base.exchange").Exchange
        _enter(_ASYNC)
    return getattr(importlib.import_module(f"{_ASYNC}.{name}"), name)


def _enter(package: str) -> ModuleType:
    found = importlib.util.find_spec(package)
    if found is None:
        raise MissingExtraError("Real exchanges need the extra `exchanges` (ccxt), which is not installed.")
    module = importlib.util.module_from_spec(found)
    sys.modules[package] = module
    return module
