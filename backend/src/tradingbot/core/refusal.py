"""Settings that cannot be used become one readable list, never a traceback and never a value."""

import os
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


class SettingsRefusedError(Exception):
    """The settings cannot be used; `problems` has one line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(settings: type[SettingsT]) -> SettingsT:
    """Reads `settings` from the environment and the secret files.

    Raises:
        SettingsRefusedError: naming every variable that is missing or unfit.
    """
    try:
        return settings()
    except ValidationError as error:
        raise SettingsRefusedError([_problem(item["loc"], item["msg"]) for item in error.errors()]) from None
    except OSError as error:
        problem = f"secret file {error.filename} cannot be read by uid {os.getuid()}: {error.strerror}"
        raise SettingsRefusedError([problem]) from None


def _problem(location: tuple[int | str, ...], message: str) -> str:
    reason = message.removeprefix("Value error, ")
    if not location:
        return reason
    name = str(location[0])
    if reason == "Field required":
        return f"{name.upper()} is missing: set it, or mount it as the file /run/secrets/{name}"
    return f"{name.upper()} {reason[0].lower()}{reason[1:]}"
