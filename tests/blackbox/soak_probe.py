"""How long pushes and wakes take beside a soak, seen by a process of its own, which does nothing else: soak_probe.py PORT SECONDS

It prints one line of JSON: the slowest and the 99th percentile, in milliseconds.
"""

import json
import secrets
import sys
import time

from http_client import Client

PAUSE_S = 0.2


def measure(address, seconds):
    channel = "/" + secrets.token_urlsafe(16)
    pushes, wakes, ts = [], [], 0
    end = time.monotonic() + seconds
    with Client(address) as pusher, Client(address) as poller:
        while time.monotonic() < end:
            poller.send_request("GET", f"{channel}?ts={ts}&sleep=25")
            time.sleep(PAUSE_S)
            began = time.monotonic()
            while (reply := pusher.post(channel, b"{}")).status != 200:
                assert reply.status == 503, reply
            pushes.append(time.monotonic() - began)
            reply = poller.read_reply()
            wakes.append(time.monotonic() - began)
            assert reply.ts > ts, reply  # a push whose answer was lost may have been stored
            ts = reply.ts
    return {f"{what}_{name}_ms": round(1000 * value, 1) for what, times in (("push", pushes), ("wake", wakes)) for name, value in summary(times)}


def summary(times):
    times.sort()
    return ("worst", times[-1]), ("p99", times[int(0.99 * len(times))]), ("p50", times[len(times) // 2])


if __name__ == "__main__":
    print(json.dumps(measure(("127.0.0.1", int(sys.argv[1])), float(sys.argv[2]))), flush=True)
