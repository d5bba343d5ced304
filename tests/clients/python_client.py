"""The Python client, imported from its folder, and what its tests share."""

import sys

from longline_server import REPOSITORY

CLIENT = REPOSITORY / "clients/python"
sys.path.insert(0, str(CLIENT / "src"))

from longline import AsyncChannel, AsyncChannels, Channel, Channels, Consumer, Entry, LonglineError
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
