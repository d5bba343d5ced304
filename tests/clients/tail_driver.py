"""`longline tail --json` as a driver: tail_driver.py URL TS SLEEP [OPTIONS]."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "blackbox"))

from longline_server import BINARY


def flags(ts, sleep, more="{}"):
    more = json.loads(more)
    if ts.startswith("-") and ts != "-":
        yield f"-n{ts[1:]}"
    elif ts != "-":
        yield f"--ts={ts}"
    elif not more.get("name") and not more.get("since"):
        yield "--ts=0"
    if sleep != "-":
        yield f"--sleep={sleep}"
    if "BACKOFF_MS" in os.environ:
        yield f"--backoff={int(os.environ['BACKOFF_MS']) / 1000}"
    for option, name in (("since", "since"), ("name", "as")):
        if option in more:
            yield f"--{name}={more[option]}"
    for condition in more.get("where", []):
        yield f"--where={condition}"


def main(url, *arguments):
    tail = subprocess.Popen([BINARY, "tail", url, "--json", *flags(*arguments)])

    def stop():
        while os.read(0, 4096):
            pass
        tail.terminate()

    threading.Thread(target=stop, daemon=True).start()
    sys.exit(tail.wait() and 3)


main(*sys.argv[1:])
