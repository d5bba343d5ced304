"""The client of longline, a self-hosted webhook inbox.

    from longline import Channel

    channel = Channel("https://hooks.example/buGcn9gSIQHGQd-d-tmKJw")
    channel.push({"hello": "world"})
    for update in channel.updates():
        print(update)
"""

from ._aio import AsyncChannel, AsyncSubscription
from ._protocol import Entry, LonglineError
from ._sync import Channel, Subscription

__version__ = "0.1.0"
__all__ = ["AsyncChannel", "AsyncSubscription", "Channel", "Entry", "LonglineError", "Subscription"]
