"""Real Redis servers of a test's own: one alone, three under Sentinels, six as a cluster. Each in its own directory, ended by its id.

Every class has settings(**more): what longline needs to be told to keep its updates there. It waits for Redis as long as a busy machine
may need; a test that waits for it to give up says how long.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from longline_server import PATIENCE_S, wait_until

HOST = "127.0.0.1"
PATIENT = {"REDIS_TIMEOUT": 5000}

# What stands in front of -server, -sentinel, -cli and -check-aof: redis or valkey.
KIND = os.environ.get("LONGLINE_TEST_REDIS", "redis")

# What a client of longline is told about Redis.
UNREACHABLE = "Redis cannot be reached; nothing was stored"
NO_ANSWER = "Redis did not answer in time; whether this was stored is not known"
NOT_REPLICATED = "Stored, but not replicated: fewer replicas have it than REDIS_WAIT asks for"
TOO_FEW_REPLICAS = "Redis has too few replicas (min-replicas-to-write); nothing was stored"
READ_ONLY = "Redis is a read-only replica; nothing was stored"
LOADING = "Redis is loading its data; nothing was stored"
OUT_OF_MEMORY = "Redis is out of memory (maxmemory); nothing was stored"
CLUSTER_DOWN = "The Redis cluster is down; nothing was stored"
NOT_NOW = "The store cannot do this now; nothing was stored"
NO_ACCESS = "Redis refuses the user or password"
DAMAGED = "The channel's keys in Redis are damaged; nothing was stored"

# Keeps what it acknowledged, whenever it is killed. By itself Redis 7 would cut the torn end of its file in the midst of a transaction,
# and the next one would be half of both: an operator who cares has it refuse such a file, and repairs it, as start() does.
DURABLE = {"appendonly": "yes", "appendfsync": "always", "aof_load_truncated": "no"}

# Fixtures are to be quick, and no test waits for a replica's first copy.
QUICK = {"repl_diskless_sync": "yes", "repl_diskless_sync_delay": 0, "repl_ping_replica_period": 1}


def free_port(_given=set()):
    """A port that nothing listens on. It is below the kernel's ephemeral ports: no client's connection takes it while its server is down."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, port))
            if port not in _given:
                _given.add(port)
                return port


class RedisError(Exception):
    """An error that Redis replied with; str() is its line."""


class RedisClient:
    """One connection that speaks RESP 2: just enough for a test."""

    def __init__(self, address, timeout=PATIENCE_S):
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.incoming = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.incoming.close()
        self.sock.close()

    def send(self, *words):
        data = b"*%d\r\n" % len(words)
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape")
            data += b"$%d\r\n%s\r\n" % (len(word), word)
        self.sock.sendall(data)

    def read(self):
        line = self.incoming.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2].decode("utf-8", "surrogateescape")
        if kind == b"-":
            raise RedisError(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.incoming.read(size + 2)[:-2].decode("utf-8", "surrogateescape")
        if kind == b"*":
            return None if int(rest) < 0 else [self.read() for _ in range(int(rest))]
        return rest

    def command(self, *words):
        self.send(*words)
        return self.read()


class RedisServer:
    """One redis-server on a port and a unix socket. Nothing is saved unless the settings say so.

    A setting is a line of redis.conf, with _ for -; a list is as many lines. The file is written once:
    what Redis or a Sentinel rewrites in it outlives restart(), as it does for an operator.
    """

    program = f"{KIND}-server"

    def __init__(self, directory: Path, **settings):
        self.directory = directory
        self.directory.mkdir(parents=True)
        self.port = settings.get("port") or free_port()
        self.socket_path = str(directory / "redis.sock")
        self.log_path = directory / "redis.log"
        self.config_path = directory / "redis.conf"
        self.password = settings.get("requirepass")
        self.needs_repair = settings.get("aof_load_truncated") == "no"
        self.environment = {}
        self.process = None
        self._client = None
        self.write_config({"port": self.port, "bind": HOST, "dir": directory, "unixsocket": self.socket_path, **settings})

    def write_config(self, settings):
        lines = []
        for name, value in {"save": '""', "appendonly": "no", **QUICK, **settings}.items():
            for each in value if isinstance(value, list) else [value]:
                lines.append(f"{name.replace('_', '-')} {each}\n")
        self.config_path.write_text("".join(lines))

    # --- start and end ---

    def start(self, ready=True):
        """Starts it, again on the same port and directory; returns once it serves (or, without `ready`, once it answers at all)."""
        assert self.process is None
        if self.needs_repair:
            self._repair()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [shutil.which(self.program), self.config_path],
                cwd=self.directory,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self._answers(ready), "Redis to answer")
        return self

    def _repair(self):
        """Cuts a transaction that it was killed in the midst of."""
        manifest = self.directory / "appendonlydir/appendonly.aof.manifest"
        if manifest.exists():
            done = subprocess.run([f"{KIND}-check-aof", "--fix", manifest], input="y\n", capture_output=True, text=True)
            assert done.returncode == 0, done.stdout

    def _answers(self, ready):
        assert self.process.poll() is None, f"Redis ended with {self.process.returncode}:\n{self.log_tail()}"
        try:
            with self.connect() as client:
                return client.command("PING") == "PONG" or not ready
        except RedisError as error:
            assert str(error).startswith(("LOADING", "MASTERDOWN")), error
            return not ready
        except OSError:
            return False

    def kill9(self):
        self._hang_up()
        if self.process:
            self.process.kill()  # a stopped process dies of it, too
            self.process.wait()
            self.process = None

    def stop(self):
        """Ends it as an operator would: it saves what it is told to save."""
        self._hang_up()
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def freeze(self):
        """It keeps its connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", "the stop")

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self):
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def log_tail(self):
        return self.log_path.read_text(errors="replace")[-3000:]

    # --- talking to it ---

    @property
    def address(self):
        return HOST, self.port

    def settings(self, **more):
        return {"DATA_PROVIDER": "redis", "REDIS_HOST": HOST, "REDIS_PORT": self.port, **PATIENT, **more}

    def connect(self, timeout=PATIENCE_S):
        """A connection of the caller's own, which closes it."""
        client = RedisClient(self.socket_path, timeout)
        if self.password:
            client.command("AUTH", self.password)
        return client

    def command(self, *words):
        """One command on the server's own kept connection."""
        kept_alive = self._client is not None
        if not kept_alive:
            self._client = self.connect()
        try:
            return self._client.command(*words)
        except OSError:
            self._hang_up()
            if not kept_alive:
                raise
            # A Sentinel closes all connections of whom it makes a master: once more, on a new one.
            return self.command(*words)

    def _hang_up(self):
        if self._client:
            self._client.close()
            self._client = None

    def config(self, name, value):
        assert self.command("CONFIG", "SET", name, value) == "OK"

    def info(self, section):
        """INFO of one section as a dictionary."""
        lines = self.command("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def calls(self):
        """How often each command was called since CONFIG RESETSTAT, those that a script calls included."""
        return {
            name.removeprefix("cmdstat_"): int(values.split(",")[0].removeprefix("calls="))
            for name, values in self.info("commandstats").items()
        }

    def keys(self, pattern="*"):
        return sorted(self.command("KEYS", pattern))


class RedisServers:
    """Starts Redis servers and kills them all."""

    def __init__(self, directory):
        self.directory = directory
        self.running = []

    def start(self, **settings):
        return self.add(**settings).start()

    def add(self, kind=RedisServer, **settings):
        """One that is not started yet."""
        server = kind(self.directory / f"redis-{len(self.running)}", **settings)
        self.running.append(server)
        return server

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self.running:
            server.kill9()


# --- Sentinel ---


class Sentinel(RedisServer):
    program = f"{KIND}-sentinel"

    def __init__(self, directory, name, master, down_after_ms, password=None):
        self.watched = {
            "sentinel monitor": f"{name} {HOST} {master.port} 2",
            "sentinel down_after_milliseconds": f"{name} {down_after_ms}",
            "sentinel failover_timeout": f"{name} 2000",  # the next try, should no one be elected, comes after twice that
        }
        super().__init__(directory, **({"requirepass": password} if password else {}))
        self.password = password

    def write_config(self, settings):
        lines = [f"{name.replace('_', '-')} {value}\n" for name, value in {**settings, **self.watched}.items()]
        if "requirepass" in settings:
            lines.append(f"sentinel sentinel-pass {settings['requirepass']}\n")
        self.config_path.write_text("".join(lines))


class SentinelSetup(RedisServers):
    """A master, two replicas and three Sentinels that know each other. A context manager: it starts and ends them all."""

    name = "inbox"

    def __init__(self, directory, down_after_ms=3000, sentinel_password=None, **settings):
        super().__init__(directory)
        self.sentinel_password = sentinel_password
        self.servers = [self.add(**settings)]
        for _ in range(2):
            self.servers.append(self.add(replicaof=f"{HOST} {self.servers[0].port}", **settings))
        self.sentinels = [
            self.add(Sentinel, name=self.name, master=self.servers[0], down_after_ms=down_after_ms, password=sentinel_password)
            for _ in range(3)
        ]

    def __enter__(self):
        try:
            for server in self.servers + self.sentinels:
                server.start()
            self._wait_until_whole()
        except BaseException:
            self.__exit__()
            raise
        return self

    def settings(self, **more):
        sentinels = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        password = {"REDIS_SENTINEL_PASS": self.sentinel_password} if self.sentinel_password else {}
        return {"DATA_PROVIDER": "redis", "REDIS_SENTINEL": sentinels, "REDIS_MASTER": self.name, **PATIENT, **password, **more}

    def port_of_master(self, sentinel=None):
        sentinel = sentinel or next(s for s in self.sentinels if s.process)
        return int(sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])

    @property
    def master(self):
        """Whom the Sentinels hold for the master."""
        return next(server for server in self.servers if server.port == self.port_of_master())

    @property
    def replicas(self):
        return [server for server in self.servers if server is not self.master]

    def _wait_until_whole(self):
        wait_until(lambda: all(map(self._sees_all, self.sentinels)), "the Sentinels to see each other", 60)
        wait_until(lambda: self.master.info("replication")["connected_slaves"] == "2", "two replicas", 60)
        for replica in self.replicas:
            wait_until(lambda: replica.info("replication").get("master_link_status") == "up", "a replica's copy", 60)

    def _sees_all(self, sentinel):
        master = sentinel.command("SENTINEL", "MASTER", self.name)
        master = dict(zip(master[::2], master[1::2]))
        if (master["flags"], master["num-slaves"], master["num-other-sentinels"]) != ("master", "2", "2"):
            return False
        if self.port_of_master(sentinel) != self.port_of_master():
            return False
        for replica in sentinel.command("SENTINEL", "REPLICAS", self.name):
            replica = dict(zip(replica[::2], replica[1::2]))
            if replica["flags"] != "slave" or replica["master-link-status"] != "ok":
                return False
        return True

    def wait_for_failover(self, old):
        """Waits until every Sentinel holds another than `old` for the master, and that one is; returns it."""

        def over():
            ports = {self.port_of_master(sentinel) for sentinel in self.sentinels if sentinel.process}
            return len(ports) == 1 and old.port not in ports and self.master.info("replication")["role"] == "master"

        wait_until(over, "the failover", 60)
        return self.master


# --- Cluster ---

SLOTS = 16384


class ClusterNode(RedisServer):
    def __init__(self, directory, node_timeout_ms, **settings):
        self.bus_port = free_port()
        super().__init__(
            directory,
            cluster_enabled="yes",
            cluster_port=self.bus_port,
            cluster_node_timeout=node_timeout_ms,
            cluster_replica_validity_factor=0,
            cluster_config_file="nodes.conf",
            **settings,
        )

    @property
    def id(self):
        return self.command("CLUSTER", "MYID")

    @property
    def is_master(self):
        return self.command("ROLE")[0] == "master"

    def nodes(self):
        """Who it thinks is in the cluster: id → (flags, whose replica or -, slots)."""
        lines = [line.split() for line in self.command("CLUSTER", "NODES").splitlines()]
        return {words[0]: (set(words[2].split(",")), words[3], words[8:]) for words in lines}

    def thinks_all_is_well(self):
        state = self.command("CLUSTER", "INFO").split()
        return "cluster_state:ok" in state and "cluster_known_nodes:6" in state and "cluster_slots_ok:16384" in state


class Cluster(RedisServers):
    """Three masters and three replicas. A context manager: it starts and ends them all."""

    def __init__(self, directory, node_timeout_ms=3000, **settings):
        super().__init__(directory)
        self.nodes = [self.add(ClusterNode, node_timeout_ms=node_timeout_ms, **settings) for _ in range(6)]

    def __enter__(self):
        try:
            for node in self.nodes:
                node.start()
            self._join()
            self.wait_until_whole()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _join(self):
        """As `redis-cli --cluster create` does, without its pauses."""
        first, *others = self.nodes
        for epoch, node in enumerate(self.nodes, start=1):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for i, node in enumerate(self.nodes[:3]):
            node.command("CLUSTER", "ADDSLOTSRANGE", SLOTS * i // 3, SLOTS * (i + 1) // 3 - 1)
        for node in others:
            node.command("CLUSTER", "MEET", HOST, first.port, first.bus_port)
        # A replica must know its master before it can be told to follow it.
        wait_until(lambda: all(len(node.nodes()) == 6 for node in self.nodes), "the nodes to meet", 60)
        for master, replica in zip(self.nodes[:3], self.nodes[3:]):
            replica.command("CLUSTER", "REPLICATE", master.id)

    def settings(self, node=0, **more):
        return self.nodes[node].settings(**more)

    @property
    def alive(self):
        return [node for node in self.nodes if node.process]

    @property
    def masters(self):
        return [node for node in self.alive if node.is_master]

    def wait_until_whole(self):
        """Starts whom a test ended, and waits until every slot has a master and every master a replica that is in step."""
        for node in self.nodes:
            if not node.process:
                node.start(ready=False)
        until = time.monotonic() + 10

        def is_well():
            if time.monotonic() > until:
                self._tell_owners()
            return all(node.thinks_all_is_well() for node in self.nodes)

        wait_until(is_well, "the cluster to be well", 60)
        wait_until(self._is_whole, "three masters with a replica each", 60)

    def _tell_owners(self):
        """To masters that know no owner of a slot, as `redis-cli --cluster fix` does. Redis 7.0 itself has left one so for good, which
        was moved before its master was killed and came back: the master whose slot it was in the eyes of all others did not know of it."""
        for node in self.masters:
            known = set()
            for first, last, *_ in node.command("CLUSTER", "SLOTS"):
                known.update(range(first, last + 1))
            for slot in set(range(SLOTS)) - known:
                node.command("CLUSTER", "SETSLOT", slot, "NODE", self.master_of(slot).id)

    def _is_whole(self):
        masters = self.masters
        return len(masters) == 3 and all(self._is_followed(master) for master in masters)

    def _is_followed(self, master):
        replicas = master.command("ROLE")[2]
        return len(replicas) == 1 and all(
            len(node.nodes()[master.id][2]) >= 1 and "fail" not in " ".join(node.nodes()[master.id][0]) for node in self.nodes
        )

    def slot(self, key):
        return self.alive[0].command("CLUSTER", "KEYSLOT", key)

    def master_of(self, slot):
        """Who serves the slot, as the majority of the nodes has it."""
        votes = {}
        for node in self.alive:
            for first, last, master, *_ in node.command("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    votes[master[1]] = votes.get(master[1], 0) + 1
        port = max(votes, key=votes.get)
        return next(node for node in self.nodes if node.port == port)

    def replica_of(self, master):
        id_ = master.id
        return next(node for node in self.alive if node.nodes()[node.id][1] == id_)

    def hand_over(self, master):
        """The master's replica takes its place in good order (CLUSTER FAILOVER); returns that replica."""
        replica = self.replica_of(master)
        next_try = 0

        def handed_over():
            nonlocal next_try
            if replica.is_master and not master.is_master:
                return True
            if not replica.is_master and time.monotonic() > next_try:  # Redis gives it up after 5 seconds
                replica.command("CLUSTER", "FAILOVER")
                next_try = time.monotonic() + 7
            return False

        wait_until(handed_over, "the hand-over")
        return replica

    def wait_for_failover(self, old):
        """Waits until another than `old`, who is dead, serves what it served, in the eyes of all."""

        def over():
            return len(self.masters) == 3 and all(node.thinks_all_is_well() for node in self.alive)

        assert old.process is None
        wait_until(over, "the failover", 60)

    def moving(self, slot, target, keys_at_a_time=1):
        """Moves a slot to another master, key by key; yields after every step, so that the test can go on meanwhile."""
        source = self.master_of(slot)
        assert source is not target
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        yield "importing"
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        yield "migrating"
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, keys_at_a_time):
            source.command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
            yield "a key moved"
        for node in [target, source] + [node for node in self.masters if node not in (target, source)]:
            node.command("CLUSTER", "SETSLOT", slot, "NODE", target.id)
            yield "one more knows"

        def all_know():
            return all(self._owner(node, slot) == target.port for node in self.alive)

        wait_until(all_know, f"all to know who serves slot {slot}")

    @staticmethod
    def _owner(node, slot):
        return next((m[1] for first, last, m, *_ in node.command("CLUSTER", "SLOTS") if first <= slot <= last), None)
