"""A test's own longline server: started, talked to, watched, stopped, and checked afterwards."""

import os
import re
import resource
import secrets
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote

from http_client import Client, Closed

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = REPOSITORY / os.environ.get("LONGLINE", "build-asan/longline")
SLOW = os.environ.get("LONGLINE_SLOW", "0" if "LONGLINE" in os.environ else "1") == "1"

# How long a test waits for a condition before it gives up. It is less than the minute after which a poll and a request end by themselves.
PATIENCE_S = 50

# With core dumps off, only root may trace it and see its descriptors.
OF_ORDINARY_USERS = {"CORE_DUMPS": "on"} if os.geteuid() else {}

# The line that says where it listens, as text or as JSON.
LISTENING = re.compile(r'(?:listening address=|"event":"listening","address":")([^\s"]+)')

# What is said of a data file, and is wrong of one that nobody has damaged.
DAMAGE = re.compile(r"an update is damaged|the data file (is|was) damaged|a bit had flipped|fewer updates than it should")

SANITIZER_REPORT = re.compile(r"ERROR: AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:")


def wait_until(condition, what="the condition", timeout_s=PATIENCE_S):
    """Returns the condition's value as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.005)


def preloaded(name):
    """A library of tests/faults. It is built beside the program; a copy of the program finds that of the release build."""
    beside = BINARY.parent / f"tests/faults/{name}.so"
    return beside if beside.exists() else REPOSITORY / f"build/tests/faults/{name}.so"


def environment(settings):
    """The settings as environment variables, added to those that every program needs."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LONGLINE")}
    return {**clean, **{name: str(value) for name, value in settings.items()}}


def parse_address(text):
    if text.startswith("unix:"):
        return text[len("unix:") :]
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Server:
    """`longline serve` in its own directory, on a free port."""

    def __init__(self, directory: Path, flags=(), descriptors=None, binary=BINARY, pass_on=None, **settings):
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.data_path = Path(settings.get("DATA_PATH") or directory / "longline.db")
        self.settings = {
            "LISTEN": "127.0.0.1:0",
            "DATA_PATH": self.data_path,
            "LOG_LEVEL": "debug",
            "IDLE_TIMEOUT": 600,  # a test keeps connections that it uses again when a busy machine has done the rest
            **OF_ORDINARY_USERS,
            **settings,
        }
        self.flags = list(flags)
        self.descriptors = descriptors
        self.binary = binary
        self.pass_on = pass_on  # sockets, as systemd does
        self.log_path = directory / "stderr.log"
        self.stdout = subprocess.DEVNULL
        self.under = []  # what runs it: the words in front of the program
        self.channels = set()
        self.may_be_damaged = False  # by the test
        self.process = None
        self.addresses = []
        self._client = None

    # --- start and end ---

    def launch(self):
        """Starts it, and does not wait. It may be started again after stop() or kill9()."""
        assert self.process is None
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.under, self.binary, "serve", *self.flags],
                cwd=self.directory,
                env=environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=self.stdout,
                stderr=log,
                preexec_fn=self._prepare if self.descriptors or self.pass_on else None,
            )

    def start(self):
        """The same, and waits until it listens."""
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.launch()

        def listening():
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log_tail()}")
            return self.listens(log_start)

        wait_until(listening, "the line that says it listens")
        if "tsan" in self.binary.parent.name:  # GCC 12's runtime may lose a signal that comes as the loop first waits
            self.request("GET", "/-/health")
        return self

    def listens(self, log_start):
        """Whether it says so, behind that place in its log; then its addresses are known."""
        self.addresses = LISTENING.findall(self.log(log_start))
        return len(self.addresses) > self.settings["LISTEN"].count(",")

    def keep_address(self):
        """From now on it listens on the same port after a restart."""
        self.settings["LISTEN"] = ",".join(self.addresses)
        return self

    def _prepare(self):
        if self.descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))
        if self.pass_on:  # LISTEN_PID is not known before, so the program is started from here
            settings = {**environment(self.settings), **self.pass_on()}
            os.execve(self.binary, [self.binary, "serve", *self.flags], settings)

    def send_signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def upgraded(self):
        """How often it has become another program."""
        return self.log().count(" upgraded from=")

    def begin_upgrade(self):
        """Sends SIGUSR2. Returns what waits until it is the other program."""
        before = self.upgraded()
        self.send_signal(signal.SIGUSR2)

        def is_done():
            assert self.process.poll() is None, f"it died: {self.process.returncode}\n{self.log_tail()}"
            return self.upgraded() > before

        return lambda: wait_until(is_done, "the upgrade")

    def upgrade(self):
        self.begin_upgrade()()

    def wait_for_exit(self, timeout_s=PATIENCE_S):
        """Waits for the process to end and returns its exit code."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s:\n{self.log_tail()}") from None
        self._forget()
        return code

    def stop(self, number=signal.SIGTERM):
        """Stops it as an operator would. It must exit with 0."""
        self.send_signal(number)
        code = self.wait_for_exit()
        assert code == 0, f"exit code {code}:\n{self.log_tail()}"

    def kill9(self):
        self.process.kill()
        self.process.wait()
        self._forget()

    def restart(self):
        self.stop()
        return self.start()

    def _forget(self):
        self.process = None
        self._hang_up()

    def _hang_up(self):
        if self._client:
            self._client.close()
            self._client = None

    def finish(self):
        """Stops it and checks it: whatever the test did, the server must have behaved."""
        try:
            if self.process:
                assert self.process.poll() is None, f"the server died: {self.process.returncode}\n{self.log_tail()}"
                self.stop()
        finally:
            if self.process:
                self.kill9()
        log = self.log()
        assert not SANITIZER_REPORT.search(log), log
        assert self.may_be_damaged or not DAMAGE.search(log), log
        told = [name for name in self.channels if len(name) >= 8 and name in log]
        assert not told, f"the log tells the secret of {told}"

    # --- what it is ---

    @property
    def pid(self):
        return self.process.pid

    @property
    def address(self):
        return parse_address(self.addresses[0])

    @property
    def port(self):
        return self.address[1]

    def url(self, target):
        return f"http://{self.addresses[0]}{target}"

    def log(self, start=0):
        with open(self.log_path, "rb") as log:
            log.seek(start)
            return log.read().decode("utf-8", "replace")

    def log_tail(self):
        return self.log()[-4000:]

    def cpu_seconds(self):
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptor_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss_bytes(self):
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # --- talking to it ---

    def channel(self):
        """A fresh channel, as a target ("/name"). Its name must never be in the log."""
        name = secrets.token_urlsafe(16)
        self.channels.add(name)
        return "/" + name

    def saw_target(self, target):
        name = target.split("?")[0].split("/")[1] if target.startswith("/") else ""
        self.channels.add(name)
        self.channels.add(unquote(name))

    def client(self, **options):
        """A new connection, which the caller must close. It is a context manager."""
        return Client(options.pop("address", self.address), on_target=self.saw_target, **options)

    def request(self, method, target, body=None, headers=None):
        """One request on a connection that this object keeps alive."""
        kept_alive = self._client is not None
        if not kept_alive:
            self._client = self.client()
        try:
            reply = self._client.request(method, target, body, headers)
        except (Closed, BrokenPipeError, ConnectionResetError):
            self._hang_up()
            if not kept_alive:
                raise
            # The server may have closed it since the last request: try once more on a new one.
            return self.request(method, target, body, headers)
        if reply.closes:
            self._hang_up()
        return reply

    def get(self, target, headers=None):
        return self.request("GET", target, headers=headers)

    def post(self, target, body=b"", headers=None):
        return self.request("POST", target, body, headers)

    def push(self, target, body=b"{}", headers=None):
        """A push that must succeed. Returns the update's id."""
        reply = self.post(target, body, headers)
        assert (reply.status, reply.body) == (200, b"OK"), reply
        return reply.total

    def read_all(self, target, ts=0):
        """Every update after `ts`, page by page, as [(id, update)]. None may be missing."""
        found = []
        while True:
            page = self.get(f"{target}?ts={ts}").json()
            assert "missed" not in page and "reset" not in page, page
            assert page["ts"] == ts + len(page["updates"]), (ts, page["ts"], len(page["updates"]))
            if not page["updates"]:
                return found
            found += enumerate(page["updates"], start=ts + 1)
            ts = page["ts"]

    def metrics(self):
        """Every sample by its full name. A name without its labels has the sum over all labels."""
        samples = {}
        for line in self.get("/-/metrics").text.splitlines():
            if not line or line.startswith("#"):
                continue
            sample, value = line.rsplit(" ", 1)
            samples[sample] = float(value)
            name = sample.split("{")[0]
            if name != sample:
                samples[name] = samples.get(name, 0) + float(value)
        return samples

    def metric(self, name):
        return self.metrics()[name]

    def wait_for_metric(self, name, value, timeout_s=PATIENCE_S):
        last = None

        def reached():
            nonlocal last
            last = self.metric(name)
            return last == value

        try:
            wait_until(reached, f"{name} to be {value}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last}") from None

    def wait_for_parked(self, count, timeout_s=PATIENCE_S):
        self.wait_for_metric("longline_polls_parked", count, timeout_s)
