"""Messages to people, through real servers that are slow, away, or out of order."""

import asyncio
import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from apprise.plugins import NotifyBase
from prometheus_client import REGISTRY

from tests.forked import run_with
from tests.network import free_port
from tests.receivers import Answer, HttpReceiver, SmtpSink, TlsProxy, eventually, http_receiver
from tradingbot.core.logging import configure_logging
from tradingbot.core.refusal import SettingsRefusedError, load
from tradingbot.core.settings import ObservabilitySettings
from tradingbot.notifications.delivery import Patience
from tradingbot.notifications.notifier import Kind, Silence
from tradingbot.notifications.sending import Sender
from tradingbot.notifications.service import Notifications, Rate, Summary, make_notifier
from tradingbot.notifications.targets import Message, Outcome, targets_of

# Of Apprise, which looks for a module that Python 3.13 has no more.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

QUICK = Patience(attempts=6, first_pause=0.05, longest_pause=0.2, timeout=5, queue=5)
MANY = Rate(messages=1000)


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    async with http_receiver() as server:
        yield server


@asynccontextmanager
async def notifying(
    *urls: str,
    kinds: Sequence[Kind] = ("fill", "refusal", "failure"),
    rate: Rate = MANY,
    patience: Patience = QUICK,
) -> AsyncIterator[Notifications]:
    """A notifier that has started."""
    notifier = Notifications(targets_of(" ".join(urls)), kinds, rate, patience)
    notifier.start()
    try:
        yield notifier
    finally:
        await notifier.close()


def webhook(receiver: HttpReceiver) -> str:
    return f"json://127.0.0.1:{receiver.port}/hook-s3cret"


def titles(receiver: HttpReceiver) -> list[str]:
    return [json.loads(request.body)["title"] for request in receiver.requests]


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("tradingbot_notifications_total", {"outcome": outcome}) or 0.0


async def test_a_webhook_gets_the_message_without_secrets(receiver: HttpReceiver) -> None:
    before = count("sent")
    async with notifying(webhook(receiver)) as notifier:
        notifier.notify("failure", "BTCUSDT: no answer", "https://x.test/?signature=0badcafe refused")
        await receiver.wait_for(1)
        await eventually(lambda: count("sent") == before + 1)
    (request,) = receiver.requests
    message = json.loads(request.body)
    assert request.path == "/hook-s3cret"
    assert message["title"] == "BTCUSDT: no answer"
    assert message["type"] == "failure"
    assert message["message"] == "https://x.test/?signature=*** refused"


async def test_an_error_is_tried_again(receiver: HttpReceiver) -> None:
    receiver.behave = lambda number: Answer(500 if number < 3 else 200)
    async with notifying(webhook(receiver)) as notifier:
        notifier.notify("fill", "first", "x")
        notifier.notify("fill", "second", "x")
        await receiver.wait_for(4)
    assert titles(receiver) == ["first", "first", "first", "second"]


async def test_too_many_requests_is_tried_again_and_unknown_address_is_not(
    receiver: HttpReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    receiver.behave = lambda number: Answer({1: 429, 2: 200, 3: 404}.get(number, 200))
    async with notifying(webhook(receiver)) as notifier:
        for title in ("first", "second", "third"):
            notifier.notify("fill", title, "x")
        await receiver.wait_for(4)
    assert titles(receiver) == ["first", "first", "second", "third"]
    log = capsys.readouterr().out
    assert '"reason":"HTTP 404"' in log
    assert "hook-s3cret" not in log


async def test_a_target_that_is_away_for_a_while_gets_it_later(receiver: HttpReceiver) -> None:
    await receiver.down()
    patience = Patience(attempts=100, first_pause=0.05, longest_pause=0.1)
    async with notifying(webhook(receiver), patience=patience) as notifier:
        notifier.notify("fill", "late", "x")
        await asyncio.sleep(0.5)
        await receiver.up()
        await receiver.wait_for(1)
    assert titles(receiver) == ["late"]


async def test_after_the_last_attempt_it_is_given_up(
    receiver: HttpReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    before = count("failed")
    receiver.behave = lambda number: Answer(503 if number <= 6 else 200)
    async with notifying(webhook(receiver)) as notifier:
        notifier.notify("fill", "given up", "x")
        notifier.notify("fill", "next", "x")
        await receiver.wait_for(7)
    assert titles(receiver) == ["given up"] * 6 + ["next"]
    assert count("failed") == before + 1
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"given up"' in line]
    assert line["event"] == "notification not sent"
    assert line["attempts"] == 6
    assert line["target"] == f"1 JSON at 127.0.0.1:{receiver.port}"


async def test_a_slow_answer_is_not_waited_for_and_not_sent_twice(receiver: HttpReceiver) -> None:
    receiver.behave = lambda number: Answer(delay=1.0 if number == 1 else 0)
    patience = Patience(attempts=50, first_pause=0.05, longest_pause=0.05, timeout=0.1)
    async with notifying(webhook(receiver), patience=patience) as notifier:
        started = time.perf_counter()
        for title in ("slow", "after"):
            notifier.notify("fill", title, "x")
        assert time.perf_counter() - started < 0.1
        await receiver.wait_for(2)
    assert titles(receiver) == ["slow", "after"]


async def test_one_that_never_answers_holds_up_nobody_else(receiver: HttpReceiver) -> None:
    async with http_receiver() as silent:
        silent.behave = lambda _number: Answer(delay=3600)
        patience = Patience(attempts=1000, first_pause=0.05, longest_pause=0.05, timeout=0.1, queue=5)
        async with notifying(webhook(silent), webhook(receiver), patience=patience) as notifier:
            for number in range(4):
                notifier.notify("fill", str(number), "x")
            await receiver.wait_for(4)
            assert len(silent.requests) == 1
            await silent.down()


async def test_a_full_queue_drops_the_oldest(
    receiver: HttpReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    before = count("dropped")
    receiver.behave = lambda number: Answer(delay=0.5 if number == 1 else 0)
    async with notifying(webhook(receiver)) as notifier:
        notifier.notify("fill", "under way", "x")
        await receiver.wait_for(1)
        for number in range(8):
            notifier.notify("fill", str(number), "x")
        await receiver.wait_for(6)
    assert titles(receiver) == ["under way", "3", "4", "5", "6", "7"]
    assert count("dropped") == before + 3
    dropped = [line for line in capsys.readouterr().out.splitlines() if "notification dropped" in line]
    assert [json.loads(line)["title"] for line in dropped] == ["0", "1", "2"]


async def test_a_flood_becomes_a_summary(receiver: HttpReceiver) -> None:
    before = count("collapsed")
    async with notifying(
        webhook(receiver), rate=Rate(3, 1.0), patience=Patience(first_pause=0.05)
    ) as notifier:
        for number in range(20):
            notifier.notify("fill", f"fill {number}", "x")
        notifier.notify("failure", "BTCUSDT: positions differ", "x")
        await receiver.wait_for(4)
        assert titles(receiver) == ["fill 0", "fill 1", "fill 2", "18 more: 17 fills, 1 failure"]
        assert count("collapsed") == before + 18
        text = json.loads(receiver.requests[3].body)["message"]
        assert text.splitlines()[0] == "- BTCUSDT: positions differ"
        assert text.splitlines()[-1] == "- and 13 more"
        await asyncio.sleep(1.1)
        notifier.notify("fill", "calm again", "x")
        await receiver.wait_for(5)
    assert titles(receiver)[-1] == "calm again"


def test_a_summary_of_few_names_them_all() -> None:
    made = Summary()
    for message in (Message("refusal", "a", ""), Message("fill", "b", ""), Message("refusal", "c", "")):
        made.add(message)
    assert made.message() == Message("refusal", "3 more: 2 refusals, 1 fill", "- a\n- c\n- b")


def test_a_summary_of_very_many_takes_little_memory() -> None:
    made = Summary()
    tracemalloc.start()
    for number in range(20_000):
        made.add(Message("fill", f"fill {number}", "x" * 1000))
    size, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.message().title == "20000 more: 20000 fills"
    assert size < 100_000


async def test_a_fault_of_ours_is_not_the_end(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, faults, before = Sender.send, ["once"], count("failed")

    async def faulty(sender: Sender, message: Message) -> Outcome:
        if faults:
            raise RuntimeError(faults.pop())
        return await sound(sender, message)

    monkeypatch.setattr(Sender, "send", faulty)
    async with notifying(webhook(receiver)) as notifier:
        for title in ("first", "second"):
            notifier.notify("fill", title, "x")
        await receiver.wait_for(1)
    assert titles(receiver) == ["second"]
    assert count("failed") == before + 1


async def test_only_the_kinds_that_are_wanted(receiver: HttpReceiver) -> None:
    async with notifying(webhook(receiver), kinds=["failure"]) as notifier:
        notifier.notify("fill", "a fill", "x")
        notifier.notify("failure", "a failure", "x")
        await receiver.wait_for(1)
    assert titles(receiver) == ["a failure"]


async def test_what_waits_at_the_end_is_sent(
    receiver: HttpReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    receiver.behave = lambda number: Answer(500 if number == 1 else 200)
    patience = Patience(attempts=5, first_pause=60, longest_pause=60, closing=20)
    async with notifying(webhook(receiver), rate=Rate(2, 60), patience=patience) as notifier:
        for number in range(4):
            notifier.notify("fill", str(number), "x")
        await eventually(lambda: "notification not sent yet" in capsys.readouterr().out)
    assert titles(receiver) == ["0", "0", "1", "2 more: 2 fills"]


async def test_the_end_does_not_wait_for_ever(
    receiver: HttpReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    receiver.behave = lambda _number: Answer(delay=3600)
    async with notifying(webhook(receiver), patience=Patience(closing=0.2)) as notifier:
        notifier.notify("fill", "under way", "x")
        notifier.notify("fill", "never", "x")
        await receiver.wait_for(1)
    assert titles(receiver) == ["under way"]
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "notifications are not sent any more"
    assert json.loads(line)["waiting"] == 1


async def test_slack_and_telegram(
    receiver: HttpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = TlsProxy(receiver, tmp_path, ["hooks.slack.com", "api.telegram.org"])
    await proxy.up()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(proxy.ca))
    receiver.behave = lambda number: Answer(503 if number <= 2 else 200)
    slack = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#trades"
    telegram = "tgram://123456789:abcdefg_hijklmnop/12315544/"
    async with notifying(slack, telegram) as notifier:
        notifier.notify("refusal", "BTCUSDT: refused", "max_position & <more>")
        await receiver.wait_for(4)
    proxy.down()
    by_host = {request.host: request for request in receiver.requests}
    slack_message = json.loads(by_host["hooks.slack.com"].body)
    assert by_host["hooks.slack.com"].path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert slack_message["attachments"][0]["title"] == "BTCUSDT: refused"
    telegram_message = json.loads(by_host["api.telegram.org"].body)
    assert by_host["api.telegram.org"].path == "/bot123456789:abcdefg_hijklmnop/sendMessage"
    assert str(telegram_message["chat_id"]) == "12315544"
    assert "max_position &amp; &lt;more&gt;" in telegram_message["text"]


async def test_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    # Apprise waits for some seconds between two mails.
    monkeypatch.setattr(NotifyBase, "request_rate_per_sec", 0)
    sink = SmtpSink(busy=1)
    await sink.up()
    url = f"mailto://bot:pw@127.0.0.1:{sink.port}?from=bot@mail.test&to=trader@mail.test&mode=insecure"
    async with notifying(url) as notifier:
        notifier.notify("fill", "BTCUSDT: bought 1 at 2", "Strategy first")
        await eventually(lambda: bool(sink.mails))
    sink.down()
    assert sink.attempts == 2
    assert sink.recipients == ["<trader@mail.test>"]
    assert "Subject: BTCUSDT: bought 1 at 2" in sink.mails[0]
    assert "Strategy first" in sink.mails[0]


def test_addresses_that_cannot_be_used_are_refused_without_showing_them() -> None:
    with pytest.raises(SettingsRefusedError) as refused:
        targets_of("json://127.0.0.1/a, nonsense://s3cret-1\njson://127.0.0.1/b tgram://s3cret-2/")
    assert refused.value.problems == [
        "NOTIFY_URLS: address 2 is not one that Apprise can use",
        "NOTIFY_URLS: address 4 is not one that Apprise can use",
    ]


def test_names_of_targets_hold_no_credentials() -> None:
    targets = targets_of(
        "jsons://user:s3cret@hooks.mail.test/s3cret?k=s3cret, slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
        "\ntgram://123456789:abcdefg_hijklmnop/12315544/ mailto://me:s3cret@mail.test"
    )
    assert [target.name for target in targets] == [
        "1 JSON at hooks.mail.test",
        "2 Slack",
        "3 Telegram",
        "4 E-Mail at mail.test:25",
    ]


async def test_without_addresses_all_is_silent_and_apprise_stays_unloaded() -> None:
    code = (
        "import sys\n"
        "from tradingbot.core.settings import ObservabilitySettings\n"
        "from tradingbot.notifications.service import make_notifier\n"
        "make_notifier(ObservabilitySettings()).notify('fill', 'a', 'b')\n"
        "assert 'apprise' not in sys.modules and 'sentry_sdk' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code]
    await asyncio.to_thread(subprocess.run, command, check=True, env=_environment({}))
    silence = make_notifier(ObservabilitySettings(notify_urls=None))
    assert isinstance(silence, Silence)
    silence.start()
    silence.notify("fill", "a", "b")
    await silence.close()


async def test_settings_make_the_notifier(monkeypatch: pytest.MonkeyPatch, receiver: HttpReceiver) -> None:
    monkeypatch.setenv("NOTIFY_URLS", webhook(receiver))
    monkeypatch.setenv("NOTIFY_EVENTS", "refusal, failure")
    notifier = make_notifier(load(ObservabilitySettings))
    notifier.start()
    notifier.notify("fill", "no", "x")
    notifier.notify("refusal", "yes", "x")
    await notifier.close()
    assert titles(receiver) == ["yes"]


def _environment(variables: dict[str, str]) -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | variables


async def notify_test(**variables: str) -> tuple[int, str, str]:
    """Runs `tradingbot notify test`; gives its exit code and what it printed."""
    result = await asyncio.to_thread(run_with, _environment(variables), "notify", "test")
    return result.returncode, result.stdout, result.stderr


async def test_the_command_shows_what_came_of_each_target(receiver: HttpReceiver) -> None:
    nobody = free_port()
    async with http_receiver() as failing:
        failing.behave = lambda _number: Answer(500)
        code, out, err = await notify_test(
            NOTIFY_URLS=f"{webhook(receiver)} {webhook(failing)} json://u:s3cret@127.0.0.1:{nobody}/s3cret"
        )
    assert code == 1
    _heading, *lines = [line.split("  ") for line in out.splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [
        (f"1 JSON at 127.0.0.1:{receiver.port}", "sent"),
        (f"2 JSON at 127.0.0.1:{failing.port}", "FAILED: HTTP 500"),
        (f"3 JSON at 127.0.0.1:{nobody}", "FAILED: no connection, or no answer in time"),
    ]
    assert "s3cret" not in out + err
    assert titles(receiver) == ["Test of notifications"]
    assert (await notify_test(NOTIFY_URLS=webhook(receiver)))[0] == 0


async def test_the_command_refuses_what_it_cannot_use() -> None:
    code, _out, err = await notify_test(NOTIFY_URLS="nonsense://s3cret")
    assert code == 2
    assert "NOTIFY_URLS: address 1 is not one that Apprise can use" in err
    assert "s3cret" not in err
    code, _out, err = await notify_test()
    assert code == 1
    assert "NOTIFY_URLS is not set" in err
