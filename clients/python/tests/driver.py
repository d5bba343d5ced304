"""The driver of the conformance tests (tests/clients): driver.py [--asyncio] URL TS SLEEP [OPTIONS]."""

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from longline import AsyncChannel, Channel, LonglineError


def say(**line):
    # A number with thousands of digits is a Decimal.
    print(json.dumps(line, default=str), flush=True)


def handle(entry):
    say(update=entry.update, text=entry.text, ts=entry.ts)
    if isinstance(entry.update, dict) and entry.update.get("throw") is True:
        raise RuntimeError("told to throw")


def handle_safely(entry):
    try:
        handle(entry)
    except RuntimeError as error:
        print(f"the handler: {error}", file=sys.stderr)


def options(ts, sleep, more="{}"):
    start = {} if ts == "-" else {"ts": ts if ts == "now" else int(ts)}
    wait = {} if sleep == "-" else {"sleep": float(sleep)}
    backoff = {"backoff": int(os.environ["BACKOFF_MS"]) / 1000} if "BACKOFF_MS" in os.environ else {}
    return {
        **start,
        **wait,
        **backoff,
        **json.loads(more),
        "on_missed": lambda count: say(missed=count),
        "on_reset": lambda newest: say(reset=newest),
        "on_error": lambda error: print(error, file=sys.stderr),
    }


def wait_for_stdin_to_close():
    while os.read(0, 4096):
        pass


def run(url, *arguments):
    channel = Channel(url)

    def stop():
        wait_for_stdin_to_close()
        channel.stop()

    entries = channel.entries(**options(*arguments))
    threading.Thread(target=stop, daemon=True).start()
    for entry in entries:
        handle_safely(entry)
    say(stopped=True, ts=entries.ts)


async def run_asyncio(url, *arguments):
    channel = AsyncChannel(url)
    entries = channel.entries(**options(*arguments))
    loop = asyncio.get_running_loop()

    def stop():
        wait_for_stdin_to_close()
        loop.call_soon_threadsafe(channel.stop)

    threading.Thread(target=stop, daemon=True).start()
    async for entry in entries:
        handle_safely(entry)
    say(stopped=True, ts=entries.ts)


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--asyncio"]
    try:
        if "--asyncio" in sys.argv:
            asyncio.run(run_asyncio(*arguments))
        else:
            run(*arguments)
    except LonglineError as error:
        say(error=error.description, status=error.status)
        sys.exit(3)


main()
