"""The versions that tests deploy are what they say: revisions that follow one another, recipes that add little."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.load import versions


def made(version: versions.Version, head: int = 3) -> dict[str, tuple[str, int]]:
    packed = versions.context("tradingbot-backend:0.2.0-abc", "/lib/versions", head, [version])
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {}
        for entry in tar.getmembers():
            file = tar.extractfile(entry)
            assert file
            found[entry.name.partition("/")[2]] = (file.read().decode(), entry.mode)
    return found


def test_a_plain_version_is_another_number_only() -> None:
    assert made(versions.Version("0.9.1")) == {
        "Dockerfile": (
            "FROM tradingbot-backend:0.2.0-abc\n"
            "ENV TRADINGBOT_VERSION=0.9.1\n"
            "LABEL org.opencontainers.image.version=0.9.1\n",
            0o644,
        )
    }


@pytest.mark.parametrize("program", ["dies", "never_ready"])
def test_a_faulty_version_has_another_program(program: str) -> None:
    files = made(versions.Version("0.9.2", program=program))
    text, mode = files["tradingbot"]
    assert mode == 0o755
    assert text.startswith("#!/opt/tradingbot/bin/python\n")
    compile(text, program, "exec")
    assert "COPY 0.9.2/tradingbot /opt/tradingbot/bin/tradingbot" in files["Dockerfile"][0]


def test_revisions_follow_the_last_one_of_the_image() -> None:
    files = made(versions.Version("0.9.3", steps=(versions.ADDS, versions.DROPS)))
    assert "COPY 0.9.3/versions/ /lib/versions/" in files["Dockerfile"][0]
    found = {}
    for name in ("versions/0004_adds_a_note.py", "versions/0005_drops_the_note.py"):
        module: dict[str, object] = {}
        exec(compile(files[name][0].replace("from alembic import op", ""), name, "exec"), module)
        found[name] = (module["revision"], module["down_revision"], module.get("contract"))
    assert list(found.values()) == [("0004", "0003", None), ("0005", "0004", "0004")]
