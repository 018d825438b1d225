# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The verifier is the one of RFC 5802/7677, so that PostgreSQL accepts the password it was made from."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from typing import cast

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tradingbot.stack.plugins.filter.scram_verifier import scram_keys, scram_verifier


def test_rfc_7677_example() -> None:
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}"
    _stored, server = scram_keys("pencil", b64decode(salt), 4096)
    signature = b64encode(hmac.digest(server, message.encode(), "sha256")).decode()
    assert signature == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_same_input_same_verifier_and_any_change_shows() -> None:
    verifier = scram_verifier("pencil", "db1/tradingbot")
    assert verifier.startswith("SCRAM-SHA-256$4096:")
    assert "pencil" not in verifier
    assert verifier == scram_verifier("pencil", "db1/tradingbot")
    assert verifier != scram_verifier("pencil2", "db1/tradingbot")
    assert verifier != scram_verifier("pencil", "db1/tradingbot_readonly")


@pytest.mark.parametrize("password", ["", "pässword", "tab\tinside", 12345678])
def test_unfit_passwords_are_refused_without_showing_them(password: object) -> None:
    with pytest.raises(AnsibleFilterError) as error:
        scram_verifier(cast(str, password), "db1/tradingbot")
    assert not password or str(password) not in str(error.value)
