"""Alembic's view of the revisions."""

from typing import Any

from alembic.config import Config

from tradingbot.migrations import head


def alembic_config(**attributes: Any) -> Config:
    """Gives a configuration that leads to the revisions; `env.py` finds `attributes` in it."""
    config = Config(attributes=attributes)
    config.set_main_option("script_location", str(head.VERSIONS.parent).replace("%", "%%"))
    return config
