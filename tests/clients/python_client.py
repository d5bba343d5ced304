"""The Python client, imported from its folder, and what its tests share."""

import asyncio
import sys

import pytest
from longline_server import REPOSITORY

CLIENT = REPOSITORY / "clients/python"
sys.path.insert(0, str(CLIENT / "src"))

from longline import AsyncChannel, AsyncChannels, Channel, Channels, Consumer, Entry, LonglineError, new_keys
from longline import _feed as feed
from longline import _protocol as protocol
from longline import _proxy as proxy
from longline._cursor import Cursor, wanted
from longline._pace import Pace
from longline._sync import Stopped

__all__ = [
    "AsyncChannel",
    "AsyncChannels",
    "Channel",
    "Channels",
    "Consumer",
    "Cursor",
    "Entry",
    "LonglineError",
    "Pace",
    "Stopped",
    "feed",
    "new_keys",
    "protocol",
    "proxy",
    "wanted",
]


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


async def take_async(iterator, count):
    return [await iterator.__anext__() for _ in range(count)]


async def push_async(url, update, **options):
    async with AsyncChannel(url, **options) as channel:
        return await channel.push(update)


async def push_batch_async(url, updates, **options):
    async with AsyncChannel(url, **options) as channel:
        return await channel.push_batch(updates)


def push_batch_sync(url, updates, **options):
    with Channel(url, **options) as channel:
        return channel.push_batch(updates)


def push_sync(url, update, **options):
    with Channel(url, **options) as channel:
        return channel.push(update)


class Sync:
    """The half without asyncio. `take` gives what a loop gave first, and the loop."""

    @staticmethod
    def take(url, count, call="updates", many=False, **options):
        with (Channels if many else Channel)(url) as channel:
            loop = getattr(channel, call)(**options)
            return take(loop, count), loop

    @staticmethod
    def call(url, name, *arguments):
        with Channel(url) as channel:
            return getattr(channel, name)(*arguments)


class Asyncio:
    @staticmethod
    def take(url, count, call="updates", many=False, **options):
        async def run():
            async with (AsyncChannels if many else AsyncChannel)(url) as channel:
                loop = getattr(channel, call)(**options)
                return await take_async(loop, count), loop

        return asyncio.run(run())

    @staticmethod
    def call(url, name, *arguments):
        async def run():
            async with AsyncChannel(url) as channel:
                return await getattr(channel, name)(*arguments)

        return asyncio.run(run())


@pytest.fixture(params=[Sync, Asyncio], ids=["sync", "asyncio"])
def half(request):
    return request.param
