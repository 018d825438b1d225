"""Secrets, and what is said of them: by the backend's settings, and by the collection's preflight."""

import base64

GOOD = "q7Zp2Lw9Xk4rT8vBn3Mh6Yd5Lc1Gf0Js"
NASTY = "@:/%#?&'\" $`\\!<>|;*()[]{}~^+=,._-Zk3"
RAW = bytes(range(130, 162))
KEY = base64.urlsafe_b64encode(RAW).decode()

# None: fit.
PASSWORDS: list[tuple[str, str | None]] = [
    (GOOD, None),
    (NASTY, None),
    (RAW.hex(), None),
    (KEY, None),
    (base64.b64encode(RAW).decode(), None),
    (GOOD[:31], "is shorter than 32 characters"),
    (f"{GOOD}x", None),
    ((GOOD + NASTY + "0") * 8, "is longer than 512 characters"),
    (f"{GOOD}\n", "begins or ends with a blank or a line end"),
    (f"{GOOD}\r\n", "begins or ends with a blank or a line end"),
    (f" {GOOD}", "begins or ends with a blank or a line end"),
    (f"{GOOD}\t", "begins or ends with a blank or a line end"),
    (f"{GOOD[:31]}\n", "begins or ends with a blank or a line end"),
    (f"{GOOD[:16]}\n{GOOD[16:]}", "has characters other than printable ASCII"),
    (f"{GOOD[:16]}\t{GOOD[16:]}", "has characters other than printable ASCII"),
    (f"{GOOD[:16]}\0{GOOD[16:]}", "has characters other than printable ASCII"),
    (f"{GOOD[:16]}\x7f{GOOD[16:]}", "has characters other than printable ASCII"),
    (f"{GOOD}é", "has characters other than printable ASCII"),
    (f"{GOOD}\u00a0", "has characters other than printable ASCII"),
    (f"\ufeff{GOOD}", "has characters other than printable ASCII"),
    (f"{GOOD[:16]} {GOOD[16:]}", None),
    (f"qwerty{GOOD}", "is a placeholder"),
    (f"changeme-{GOOD}", "is a placeholder"),
    (f"dummy{GOOD}", "is a placeholder"),
    ("changeme", "is a placeholder"),
    ("${WEBHOOK_SECRET}-0123456789", "is a placeholder"),
    ("<paste the key here, 32 characters>", "is a placeholder"),
    (f"{GOOD}<{GOOD[::-1]}>", None),
    ("123456" * 6, "has fewer than 10 different characters"),
    ("kqz9" * 12, "has fewer than 10 different characters"),
    (GOOD * 2, "is one piece repeated"),
    ("abcdefghijklmnopqrstuvwxyz0789bcde", "is a run of neighbouring characters"),
    ("12345678901234567890123456789012345678901234", "is a run of neighbouring characters"),
    ("true", "is shorter than 32 characters"),
]

KEYS: list[tuple[str, str | None]] = [
    (KEY, None),
    (base64.b64encode(b"\xfb\xff" + RAW[2:]).decode(), None),
    (base64.urlsafe_b64encode(b"\xfb\xff" + RAW[2:]).decode(), None),
    (base64.b64encode(b"\xfb\xff" + RAW[2:]).decode().rstrip("="), "is not urlsafe base64 of 32 bytes"),
    (GOOD, "is not urlsafe base64 of 32 bytes"),
    (RAW.hex(), "is not urlsafe base64 of 32 bytes"),
    (base64.b64encode(RAW[1:]).decode(), "is not urlsafe base64 of 32 bytes"),
    (base64.b64encode(RAW + b"\xff").decode(), "is not urlsafe base64 of 32 bytes"),
    (base64.b64encode(GOOD.encode()).decode(), "is not random"),
    (base64.b64encode(bytes(32)).decode(), "is not random"),
    (f"{KEY}\n", "begins or ends with a blank or a line end"),
    (f"{KEY[:20]}\n{KEY[20:]}", "has characters other than printable ASCII"),
    (f"{KEY[:-2]}é=", "has characters other than printable ASCII"),
    ("changeme", "is a placeholder"),
]

SENTRY_DSNS: list[tuple[str, str | None]] = [
    ("https://0a1b2c3d@sentry.mail.test/1", None),
    ("https://0a1b2c3d@sentry.secret.example/path/1", None),
    ("https://sentry.mail.test/1", "is not the address of a Sentry project"),
    ("https://0a1b2c3d@sentry.mail.test/1\n", "begins or ends with a blank or a line end"),
    ("https://0a1b2c3d@sentry.mäil.test/1", "has characters other than printable ASCII"),
    ("12345", "is not the address of a Sentry project"),
]

NOTIFY_URLS: list[tuple[str, str | None]] = [
    ("tgram://123:abc/4815", None),
    ("tgram://123:abc/4815\nmailto://me:a,b@mail.test, json://hook.test\n", None),
    ("tgram://123:abc/4815,mailto://me:pässword@mail.test", None),
    ("4815162342", "has something in it that is not an address in Apprise's form"),
    ("tgram://123:abc/4815 me@mail.test", "has something in it that is not an address in Apprise's form"),
]

CASES = {
    "secret_key": PASSWORDS,
    "webhook_secret": PASSWORDS,
    "encryption_key": KEYS,
    "encryption_key_old": KEYS,
    "sentry_dsn": SENTRY_DSNS,
    "notify_urls": NOTIFY_URLS,
}
"""By the name of the setting: values, and why each is refused."""
