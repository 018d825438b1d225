"""The linter of migrations, as a deploy uses it."""

import json
import subprocess
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "squawk.toml"


def lint(path: Path) -> list[str]:
    """Gives the findings of a file, as `rule: line`."""
    done = subprocess.run(
        ["squawk", "--config", str(CONFIG), "--reporter", "json", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout, done.stderr
    lines = path.read_text().splitlines()
    return [
        f"{one['rule_name']}: {lines[one['line']]}"
        for one in json.loads(done.stdout)
        if not _is_not_null_of_a_new_column(one, lines[one["line"]])
    ]


def _is_not_null_of_a_new_column(finding: dict[str, object], line: str) -> bool:
    """Code that does not know a column does not write NULL into it; without a default, see another rule."""
    marked = line[int(str(finding["column"])) : int(str(finding["column_end"]))]
    return finding["rule_name"] == "ban-new-write-restriction" and marked == "NOT NULL"
