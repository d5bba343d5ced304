"""A forward proxy, such as companies have between their programs and the world."""

import socket
import threading

from standin import bound_socket, hang_up, stop_listening


class ForwardProxy:
    """Passes on `GET http://host:port/path` and `CONNECT host:port`.

    `requests` is the heads that came. `refuses` is a status that it answers instead.
    """

    def __init__(self, refuses=None):
        self.requests = []
        self.refuses = refuses
        self._listener = bound_socket(0)
        self.port = self._listener.getsockname()[1]
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def end(self):
        stop_listening(self._listener)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return
            data += more
        head = data.split(b"\r\n\r\n")[0].decode("latin-1")
        self.requests.append(head)
        method, target, _ = head.split("\r\n")[0].split(" ")
        if self.refuses:
            connection.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self.refuses)
            connection.close()
            return
        host, _, port = target.removeprefix("http://").split("/")[0].rpartition(":")
        backend = socket.create_connection((host, int(port)))
        if method == "CONNECT":
            connection.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
        else:
            backend.sendall(data.replace(b"http://%s:%s" % (host.encode(), port.encode()), b"", 1))
        threading.Thread(target=pump, args=(connection, backend), daemon=True).start()
        pump(backend, connection)


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    hang_up(sink)
