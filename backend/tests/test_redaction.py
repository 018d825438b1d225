"""No text that is logged, reported or shown has a credential in it, however it is written."""

import pytest

from tradingbot.core.redaction import redact
from tradingbot.core.tokens import TokenKind, new_token

HUSH = "hUsh1234hUsh"


@pytest.mark.parametrize("kind", TokenKind)
def test_our_own_tokens(kind: TokenKind) -> None:
    token = new_token(kind)
    for text in (token, f"('{token}',)", f"ticket.{token}", f"/x/{token}?a=1", f"no such thing: {token}."):
        assert token not in redact(text)
        assert token[8:] not in redact(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"redis://u:{HUSH}@h:1/0", "redis://u:***@h:1/0"),
        (f"redis://:{HUSH}@h:1/0", "redis://:***@h:1/0"),
        (f"https://{HUSH}@sentry.test/1", "https://***@sentry.test/1"),
        (f"mailto://me:{HUSH}@mail.test", "mailto://me:***@mail.test"),
        (f"POST /api/v1/webhooks/tradingview/{HUSH}", "POST /api/v1/webhooks/tradingview/***"),
        (f"https://discord.com/api/webhooks/12/{HUSH}?x=1", "https://discord.com/api/webhooks/12/***?x=1"),
        (f"https://hooks.slack.com/services/T1/B1/{HUSH}", "https://hooks.slack.com/services/***"),
        (
            f"https://api.telegram.org/bot12345:{HUSH}/sendMessage",
            "https://api.telegram.org/bot***/sendMessage",
        ),
        (f"Authorization: Bearer {HUSH}", "Authorization: ***"),
        (f"{{'authorization': 'Basic {HUSH}'}}", "{'authorization': '***'}"),
        (f"sent Bearer {HUSH} to it", "sent Bearer *** to it"),
        (f"/fapi/v1/order?symbol=A&signature={HUSH}&x=1", "/fapi/v1/order?symbol=A&signature=***&x=1"),
        (f'{{"secret": "{HUSH}", "symbol": "A"}}', '{"secret": "***", "symbol": "A"}'),
        (f"{{'apiKey': '{HUSH}', 'b': 1}}", "{'apiKey': '***', 'b': 1}"),
        (f"[(b'x-mbx-apikey', b'{HUSH}')]", "[(b'x-mbx-apikey', b'***')]"),
        (f"X-API-Key: {HUSH}", "X-API-Key: ***"),
        (f"SECRET_KEY={HUSH}", "SECRET_KEY=***"),
        (f"password='{HUSH}'", "password='***'"),
        (f"eyJhbGciOiJIUzI1NiJ9.{HUSH}.{HUSH}", "eyJ***"),
    ],
)
def test_credentials_of_others(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "BTCUSDT: bought 0.5 at 60000",
        "PostgreSQL 15.4 at db:5432",
        "tradingbot migrate",
        "https://app.mail.test/api/v1/signals?limit=5",
        "the ticket has been used",
        "a token is needed",
        '{"reason":"max_position","symbol":"A"}',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("kind", TokenKind)
def test_a_token_without_a_slash_before_it(kind: TokenKind) -> None:
    token = new_token(kind)
    assert (
        redact(f"POST /api/v1/webhooks/tradingview{token}") == f"POST /api/v1/webhooks/tradingview{kind}_***"
    )
