"""Which moments of a kill a run of the tests tries."""

from __future__ import annotations

import pytest

from tests.stack import moments

MOMENTS = ["first", "second", "third", "fourth", "fifth"]


def test_a_seed_chooses_the_same_moments_again_and_keeps_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "ALL", False)
    chosen = set()
    for seed in range(50):
        monkeypatch.setattr(moments, "SEED", seed)
        some = moments.some_of(MOMENTS, 2)
        assert some == moments.some_of(MOMENTS, 2)
        assert some == sorted(some, key=MOMENTS.index)
        assert len(set(some)) == 2
        chosen |= set(some)
    assert chosen == set(MOMENTS), "in turn, each has its run"


def test_a_release_tries_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "ALL", True)
    assert moments.some_of(MOMENTS, 2) == MOMENTS
