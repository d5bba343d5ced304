"""The commands that talk to a server, run as a user runs them; and a web server that answers as it is told."""

import contextlib
import os
import signal
import socketserver
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from longline_server import BINARY, PATIENCE_S
from program import Program

# What a job in the background ignores, a command would ignore as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


def run(*arguments, stdin=b"", text=True, patience_s=4 * PATIENCE_S, **environment):
    """Runs longline until it ends."""
    ended = subprocess.run(
        [BINARY, *map(str, arguments)],
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        timeout=patience_s,
    )
    if text:
        ended.stdout, ended.stderr = ended.stdout.decode(), ended.stderr.decode()
    return ended


def is_refused(ended, code):
    """Checks that it ended with this code, no stdout, and one line on stderr, which it returns."""
    assert ended.returncode == code, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("longline: ")
    return line


class Command(Program):
    """A command that goes on until it is stopped."""

    def __init__(self, directory: Path, *arguments, **environment):
        super().__init__(directory, [BINARY, *arguments], environment=environment)


class Received:
    """A request that a Target got."""

    def __init__(self, handler):
        self.method, self.target, self.headers = handler.command, handler.path, handler.headers
        self.header_names = [name.lower() for name in handler.headers.keys()]
        length = handler.headers.get("Content-Length")
        self.body = handler.rfile.read(int(length)) if length else b""


class Target(socketserver.ThreadingTCPServer):
    """A web server on this machine. `answer(number, received)` says how to answer a request, counted from 0:

    a status; a status with headers and a body; None to hang up; or a function that takes the connection and says so.
    With `context` it speaks TLS.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer=lambda number, received: 200, port=0, context=None):
        self.answer = answer
        self.received = []
        self._counting = threading.Lock()
        super().__init__(("127.0.0.1", port), TargetConnection)
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def handle_error(self, request, client_address):
        """Whoever hangs up is no error."""

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class TargetConnection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        received = Received(self)
        with self.server._counting:
            number = len(self.server.received)
            self.server.received.append(received)
        answer = self.server.answer(number, received)
        if callable(answer):
            answer = answer(self.connection)
        if answer is None:
            self.close_connection = True
            return
        status, headers, body = answer if isinstance(answer, tuple) else (answer, {}, b"")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, *_):
        pass
