"""Versions that come after this one: its migrations with more revisions."""

import shutil
from pathlib import Path

import pytest

from tradingbot.migrations import head

_MODULE = """
from alembic import op

revision = "{number}"
down_revision = "{before}"
branch_labels = None
depends_on = None
{said}

def upgrade() -> None:
    op.execute({up!r})


def downgrade() -> None:
    op.execute({down!r})
"""


class LaterRevisions:
    """Makes this process believe that there are more revisions."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "migrations" / "versions"
        shutil.copytree(head.VERSIONS.parent, self.folder.parent)
        monkeypatch.setattr(head, "VERSIONS", self.folder)

    def add(self, up: str, down: str = "SELECT 1", said: str = "") -> str:
        """Adds a revision after the last; `said` is what it says of itself. Gives its number."""
        before = head.head_revision()
        number = f"{int(before) + 1:04}"
        return self.add_module(_MODULE.format(number=number, before=before, said=said, up=up, down=down))

    def add_module(self, text: str) -> str:
        """Adds a revision whose module is `text`. Gives its number."""
        number = f"{int(head.head_revision()) + 1:04}"
        (self.folder / f"{number}_later.py").write_text(text)
        head.head_revision.cache_clear()
        return number

    def forget(self) -> None:
        """Lets this process be the version again that it is."""
        for path in self.folder.glob("*_later.py"):
            path.unlink()
        head.head_revision.cache_clear()
