"""Figures, with the baseline and the aim that each is compared with, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Aim:
    """What a figure, or its ratio to the baseline, should come to."""

    limit: float
    at_least: bool = False
    of_ratio: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{' of it' if self.of_ratio else ''}"


@dataclass(frozen=True)
class Row:
    """One figure. `baseline` is in the same unit and of the same run."""

    what: str
    value: float
    unit: str
    baseline: float | None = None
    against: str = ""
    aims: tuple[Aim, ...] = ()

    @property
    def ratio(self) -> float | None:
        """The value over its baseline."""
        return self.value / self.baseline if self.baseline else None

    def met(self, aim: Aim) -> bool:
        """Tell whether the figure reaches *aim*."""
        value = self.ratio if aim.of_ratio else self.value
        if value is None:
            raise ValueError(f"{self.what} has no baseline to be compared with")
        return value >= aim.limit if aim.at_least else value <= aim.limit

    def cells(self) -> list[str]:
        """Return the row as the texts of a table."""
        compared = (
            f"{self.ratio:.2f} of {self.against} ({number(self.baseline or 0)})" if self.ratio is not None else ""
        )
        aims = ", ".join(f"{aim}: {'met' if self.met(aim) else 'not met'}" for aim in self.aims)
        return [self.what, f"{number(self.value)} {self.unit}".strip(), compared, aims]

    def as_json(self) -> dict[str, Any]:
        """Return the row for the result file."""
        return {
            "what": self.what,
            "value": round(self.value, 3),
            "unit": self.unit,
            "baseline": None if self.baseline is None else round(self.baseline, 3),
            "against": self.against,
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "aims": [{"aim": str(aim), "met": self.met(aim)} for aim in self.aims],
        }


@dataclass
class Report:
    """All figures of one run, by chapter, and the machine that they were taken on."""

    machine: dict[str, str]
    chapters: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, chapter: str, row: Row) -> None:
        """Note a figure and print it at once."""
        self.chapters.setdefault(chapter, []).append(row)
        print("   " + " · ".join(cell for cell in row.cells() if cell), flush=True)

    def markdown(self) -> str:
        """Return the tables as Markdown."""
        lines = [" · ".join(f"{name}: {value}" for name, value in self.machine.items())]
        for chapter, rows in self.chapters.items():
            lines += ["", f"### {chapter}", "", "| figure | value | against the baseline | aim |", "|---|---:|---|---|"]
            lines += [f"| {' | '.join(row.cells())} |" for row in rows]
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, Any]:
        """Return all for the result file."""
        chapters = {chapter: [row.as_json() for row in rows] for chapter, rows in self.chapters.items()}
        return {"machine": self.machine, "chapters": chapters}


def number(value: float) -> str:
    """Return *value* with about three digits that count, and thousands apart; counts as they are."""
    if isinstance(value, int):
        return f"{value:,d}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
