"""nginx, Caddy and HAProxy with the configurations of packaging/, in which are other ports and paths."""

import contextlib
import os
import re
import socket
import ssl
import subprocess

from http_client import Client
from longline_server import REPOSITORY, wait_until
from redis_server import HOST, free_port

KINDS = ("nginx", "caddy", "haproxy")
NAME = "hooks.example.com"
SAW = "X-Saw"


def has_http2_directive():
    """nginx 1.25.1 and later warn of `http2` in a `listen`, and older ones know nothing else."""
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
    return tuple(map(int, re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said).groups())) >= (1, 25, 1)


class Proxy:
    """A proxy with its configuration, in front of the port `upstream`; it speaks TLS where there is an authority.

    With a mark, it puts that into a header of every request that it sees: SAW.
    """

    def __init__(self, kind, directory, upstream, authority=None, connections=1000, mark=None):
        self.kind, self.directory, self.authority = kind, directory, authority
        self.port = free_port()
        self.ports = [self.port]
        self.address, self.upstream = f"{HOST}:{self.port}", f"{HOST}:{upstream}"
        self.certificate, self.key = authority.issue(f"DNS:{NAME}") if authority else (None, None)
        self.mark = mark
        self.environment = {**os.environ, "HOME": str(directory)}
        directory.mkdir()
        getattr(self, "_" + kind)(connections)

    def _configure(self, path, changes):
        """Writes the configuration with other text for some of it, all of which must be there."""
        text = (REPOSITORY / "packaging" / path).read_text()
        for old, new in changes.items():
            assert old in text, f"{path} has no {old}"
            text = text.replace(old, str(new))
        (self.directory / path.split("/")[1]).write_text(text)

    def _nginx(self, connections):
        listen = f"listen {self.address};"
        if self.authority:
            listen = f"listen {self.address} ssl; http2 on;" if has_http2_directive() else f"listen {self.address} ssl http2;"
        changes = {
            "127.0.0.1:3000": self.upstream,
            "listen 443 ssl http2;": listen,
            "listen [::]:443 ssl http2;": "",
            "/var/log/nginx": self.directory,
        }
        if self.mark:
            changes["proxy_set_header Host $host;"] = f"proxy_set_header Host $host; proxy_set_header {SAW} {self.mark};"
        if self.authority:
            changes["/etc/ssl/certs/hooks.example.com.pem"] = self.certificate
            changes["/etc/ssl/private/hooks.example.com.key"] = self.key
        else:
            changes["ssl_certificate"] = "# ssl_certificate"
        self._configure("nginx/longline.conf", changes)
        directories = "".join(f"{what}_temp_path {what}; " for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.getuid() == 0 else ""  # who may write to the test's directory
        (self.directory / "nginx.conf").write_text(
            f"daemon off; {user} pid pid; error_log stderr; events {{ worker_connections {connections}; }} "
            f"http {{ {directories} include longline.conf; }}"
        )
        self.command = ["nginx", "-e", "stderr", "-p", self.directory, "-c", "nginx.conf"]
        self.check = [*self.command, "-t"]

    def _haproxy(self, _):
        bind = f"bind {self.address}"
        if self.authority:
            pem = self.directory / "longline.pem"
            pem.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
            bind += f" ssl crt {pem} alpn h2,http/1.1"
        changes = {
            "127.0.0.1:3000": self.upstream,
            "bind :443,[::]:443 v6only ssl crt /etc/haproxy/longline.pem alpn h2,http/1.1": bind,
            "maxconn 30000": "maxconn 1000",
        }
        if self.mark:
            changes["option forwardfor"] = f"option forwardfor\n    http-request set-header {SAW} {self.mark}"
        if os.getuid() != 0:
            changes |= {"user haproxy": "", "group haproxy": "", "chroot /var/lib/haproxy": ""}
        self._configure("haproxy/haproxy.cfg", changes)
        self.command = ["haproxy", "-db", "-f", self.directory / "haproxy.cfg"]
        self.check = [*self.command, "-c"]

    def _caddy(self, _):
        # Its ports beside that of the site.
        self.redirect_port = free_port()
        if self.authority:  # it sends those who come without TLS to the port with it
            self.ports.append(self.redirect_port)
        ports = f"admin off\n\tdefault_bind {HOST}\n\thttp_port {self.redirect_port}"
        changes = {"\n{\n": f"\n{{\n\t{ports}\n"}
        if self.mark:
            changes["lb_try_duration 5s"] = f"lb_try_duration 5s\n\t\theader_up {SAW} {self.mark}"
        self._configure("caddy/Caddyfile", changes)
        self.environment |= {
            "LONGLINE_SITE": f"{'' if self.authority else 'http://'}{NAME}:{self.port}",
            "LONGLINE_TLS": f"tls {self.certificate} {self.key}" if self.authority else "",
            "LONGLINE": self.upstream,
            "LONGLINE_LOG": str(self.directory / "longline.log"),
        }
        self.command = ["caddy", "run", "--config", self.directory / "Caddyfile"]
        self.check = ["caddy", "validate", "--config", self.directory / "Caddyfile"]

    def start(self):
        console_path = self.directory / "console.log"
        with open(console_path, "wb") as console:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )

        def listens(port):
            assert self.process.poll() is None, console_path.read_text()
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, port)).close()
                return True

        for port in self.ports:
            wait_until(lambda port=port: listens(port), f"{self.kind} to listen on {port}")
        return self

    def finish(self):
        self.process.terminate()
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def client(self, source="127.0.0.2"):
        return ProxyClient(self, source)

    def request(self, method, target, body=None, headers=None, source="127.0.0.2"):
        with self.client(source) as client:
            return client.request(method, target, body, headers)

    def log(self):
        """All that it has written."""
        return "".join(path.read_text("utf-8", "replace") for path in self.directory.glob("*.log"))


class ProxyClient(Client):
    """A client from an address of its own, over TLS where the proxy speaks that."""

    def __init__(self, proxy, source):
        self.sock = socket.create_connection((HOST, proxy.port), 90, (source, 0))
        if proxy.authority:
            context = ssl.create_default_context(cafile=proxy.authority.certificate)
            self.sock = context.wrap_socket(self.sock, server_hostname=NAME)
        self.buffer = bytearray()
        self.on_target = None

    def send_request(self, method, target, body=None, headers=None, version="HTTP/1.1"):
        super().send_request(method, target, body, {"Host": NAME, **(headers or {})}, version)


class Proxies:
    """Starts proxies and ends them all."""

    def __init__(self, directory):
        self.directory = directory
        self.running = []

    def start(self, kind, upstream, authority=None, **options):
        """In front of that port, with TLS where there is an authority."""
        proxy = Proxy(kind, self.directory / f"{kind}-{len(self.running)}", upstream, authority, **options)
        self.running.append(proxy.start())
        return proxy

    def finish(self):
        for proxy in self.running:
            proxy.finish()
