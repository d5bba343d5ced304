"""The client of longline, a self-hosted webhook inbox.

    from longline import Channel

    channel = Channel("https://hooks.example/buGcn9gSIQHGQd-d-tmKJw")
    channel.push({"hello": "world"})
    for update in channel.updates():
        print(update)
"""

from ._aio import AsyncChannel, AsyncChannels, AsyncChannelsSubscription, AsyncSubscription
from ._keys import Keys, new_keys
from ._protocol import Consumer, Entry, LonglineError
from ._sync import Channel, Channels, ChannelsSubscription, Subscription

__version__ = "0.1.0"
__all__ = [
    "AsyncChannel",
    "AsyncChannels",
    "AsyncChannelsSubscription",
    "AsyncSubscription",
    "Channel",
    "Channels",
    "ChannelsSubscription",
    "Consumer",
    "Entry",
    "Keys",
    "LonglineError",
    "Subscription",
    "new_keys",
]
