"""Live events between two instances of the application, and clients that do not keep up."""

import asyncio
import json
from uuid import UUID, uuid4

from tests.conftest import Account, client_of, make_account
from tradingbot.api_keys import service
from tradingbot.app import create_app
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.events.hub import EventHub
from tradingbot.events.schemas import Event


async def test_event_reaches_the_owner_on_another_instance(settings: Settings, account: Account) -> None:
    other = await make_account(settings, "other@mail.test")
    here, there = create_app(settings), create_app(settings)
    async with here.router.lifespan_context(here), there.router.lifespan_context(there):
        hub: EventHub = there.state.context.hub
        await hub.wait_connected()
        mine = hub.subscribe(await owner_of(settings, account))
        not_mine = hub.subscribe(await owner_of(settings, other))
        async with client_of(here) as client:
            answer = await client.post(account.webhook, json={"symbol": "A", "action": "buy", "id": "live"})
        message = json.loads(await asyncio.wait_for(mine.queue.get(), 5))
        assert message["type"] == "signal"
        assert message["data"]["id"] == answer.json()["id"]
        assert "user_id" not in message
        assert not_mine.queue.empty()


async def owner_of(settings: Settings, account: Account) -> UUID:
    database = Database(settings)
    async with database.transaction() as session:
        owner = await service.authenticate(session, account.api_key, settings.secret_key.get_secret_value())
    await database.close()
    return owner


async def test_a_full_queue_marks_the_client_and_nobody_else(settings: Settings) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        hub: EventHub = app.state.context.hub
        await hub.wait_connected()
        user = uuid4()
        slow, quick = hub.subscribe(user), hub.subscribe(user)
        for number in range(settings.websocket_queue_size + 1):
            app.state.context.publisher.publish(Event(user_id=user, type="test", data={"number": number}))
            await asyncio.wait_for(quick.queue.get(), 5)
        assert slow.overflowed.is_set()
        assert not quick.overflowed.is_set()
        hub.unsubscribe(slow)
        hub.unsubscribe(quick)


async def test_foreign_messages_on_the_channel_are_ignored(settings: Settings) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        context = app.state.context
        await context.hub.wait_connected()
        user = uuid4()
        subscription = context.hub.subscribe(user)
        await context.redis.publish("tradingbot:events", "not ours")
        context.publisher.publish(Event(user_id=user, type="test", data={}))
        assert json.loads(await asyncio.wait_for(subscription.queue.get(), 5)) == {"type": "test", "data": {}}
