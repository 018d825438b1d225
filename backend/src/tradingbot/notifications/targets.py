"""Where messages go: NOTIFY_URLS, in the form of Apprise (https://github.com/caronc/apprise/wiki).

Apprise is imported here, and only when there are addresses: it takes time and memory.
"""

import logging
import re
import threading
from typing import Any, NamedTuple

from tradingbot.core.redaction import redact
from tradingbot.core.refusal import SettingsRefusedError
from tradingbot.core.secret_policy import notify_urls
from tradingbot.notifications.notifier import Kind

_LONGEST_TEXT = 1500
# Services whose addresses hold a host name; in those of others the same place is a token.
_WITH_HOST = ("JSON", "XML", "Form", "E-Mail", "ntfy", "Gotify", "Mattermost", "Rocket.Chat", "Matrix")
_TYPES = {"fill": "success", "refusal": "warning", "failure": "failure"}
_STATUS = re.compile(r"\berror=(\d{3})\b")
# 4xx answers that may be others later: time-out, too early, too many.
_PASSING = (408, 425, 429)


class Message(NamedTuple):
    """What people get."""

    kind: Kind
    title: str
    text: str


class Outcome(NamedTuple):
    """What came of one attempt; `hopeless`: another one would come to the same."""

    sent: bool
    reason: str = ""
    hopeless: bool = False


SENT = Outcome(sent=True)


class Target:
    """One address. `name` can be shown: it has nothing of the address but the kind and, of some, the host."""

    def __init__(self, number: int, plugin: Any, asset: Any) -> None:
        import apprise

        self.name = f"{number} {plugin.service_name}"
        if str(plugin.service_name) in _WITH_HOST and plugin.host:
            port = f":{plugin.port}" if getattr(plugin, "port", None) else ""
            self.name += f" at {plugin.host}{port}"
        self._apprise = apprise.Apprise(asset=asset)
        self._apprise.add(plugin)

    def send(self, message: Message) -> Outcome:
        """Sends once; to be called from a thread. Apprise bounds the time of each read and connection."""
        _reasons.lines = []
        sent = self._apprise.notify(
            title=redact(message.title),
            body=redact(message.text)[:_LONGEST_TEXT],
            notify_type=_TYPES[message.kind],
            body_format="text",
        )
        return SENT if sent else _outcome(" ".join(_reasons.lines))


def targets_of(urls: str) -> list[Target]:
    """Reads addresses that are separated by blanks, line ends or commas before an address.

    Raises:
        SettingsRefusedError: one is not in Apprise's form; names its place, as it holds credentials.
    """
    import apprise

    _listen_to_apprise()
    asset = apprise.AppriseAsset(
        app_id="tradingbot",
        app_desc="tradingbot",
        app_url="",
        image_url_mask="",
        image_url_logo="",
        # Else it sends in threads of a pool, which hold up the end of the process. Ours do not.
        service_timeout=0,
        async_mode=False,
        secure_logging=True,
    )
    targets, wrong = [], []
    for number, url in enumerate(notify_urls(urls), start=1):
        plugin = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        if plugin is None:
            wrong.append(f"NOTIFY_URLS: address {number} is not one that Apprise can use")
        else:
            targets.append(Target(number, plugin, asset))
    if wrong:
        raise SettingsRefusedError(wrong)
    return targets


class _Reasons(threading.local):
    """What Apprise logged while this thread was sending."""

    def __init__(self) -> None:
        self.lines: list[str] = []


_reasons = _Reasons()


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _reasons.lines.append(record.getMessage())


def _listen_to_apprise() -> None:
    """Its lines hold parts of addresses: none goes further than to `_outcome`."""
    logger = logging.getLogger("apprise")
    logger.handlers = [_Listener()]
    logger.propagate = False
    logger.setLevel(logging.WARNING)


def _outcome(said: str) -> Outcome:
    status = _STATUS.search(said)
    if status:
        code = int(status.group(1))
        return Outcome(sent=False, reason=f"HTTP {code}", hopeless=400 <= code < 500 and code not in _PASSING)
    if "onnection" in said:
        return Outcome(sent=False, reason="no connection, or no answer in time")
    return Outcome(sent=False, reason="not accepted")
