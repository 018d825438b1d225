"""Table schema_compatibility."""

from sqlalchemy import CheckConstraint, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.models import Base


class SchemaCompatibility(Base):
    """One row: the oldest head that can live with the schema. Migrations keep it."""

    __tablename__ = "schema_compatibility"
    __table_args__ = (CheckConstraint("only_row", name="one_row"),)

    only_row: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    oldest: Mapped[str] = mapped_column(Text)
