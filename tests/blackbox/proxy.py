"""A line between longline and a Redis that fails in every way a network can."""

import contextlib
import queue
import socket
import threading
import time

from redis_server import HOST


class Proxy:
    """Stands between longline and a Redis, and cuts, stalls or delays what passes."""

    def __init__(self, address, delay_s=0, news_delay_s=0):
        self.address = address
        self.delay_s = delay_s  # each way, on the lines that carry no news
        self.news_delay_s = news_delay_s
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.lines = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for line in self.lines:
            line.cut()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                self.lines.append(ProxiedLine(self, self.listener.accept()[0]))

    def settings(self, **more):
        return {"DATA_PROVIDER": "redis", "REDIS_HOST": HOST, "REDIS_PORT": self.port, **more}

    def open_lines(self, subscribed=None):
        """The open lines; with `subscribed` only those that carry news, or that do not."""
        return [line for line in self.lines if line.is_open and subscribed in (None, line.subscribed)]


class ProxiedLine:
    def __init__(self, proxy, client):
        self.proxy = proxy
        self.ends = (client, socket.create_connection(proxy.address))
        self.is_open = True
        self.subscribed = False
        self.flows = threading.Event()
        self.flows.set()
        for source, target in (self.ends, self.ends[::-1]):
            under_way = queue.SimpleQueue()
            threading.Thread(target=self._take, args=(source, under_way), daemon=True).start()
            threading.Thread(target=self._deliver, args=(under_way, target), daemon=True).start()

    def _take(self, source, under_way):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.subscribed |= source is self.ends[0] and b"SUBSCRIBE" in data.upper()
                delay_s = self.proxy.news_delay_s if self.subscribed else self.proxy.delay_s
                under_way.put((time.monotonic() + delay_s, data))
        under_way.put((0, b""))

    def _deliver(self, under_way, target):
        with contextlib.suppress(OSError):
            while (packet := under_way.get())[1]:
                time.sleep(max(0, packet[0] - time.monotonic()))
                self.flows.wait()
                target.sendall(packet[1])
        self.cut()

    def stall(self):
        """Lets nothing pass any more, without telling either end."""
        self.flows.clear()

    def cut(self):
        self.is_open = False
        self.flows.set()
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
