"""The servers that the benchmark compares.

Each runs on a free loopback port, in a directory of its own. It is stopped by its pid, and ends with
the benchmark if that is killed.
"""

import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import time

START_SECONDS = 20
STOP_SECONDS = 10
PR_SET_PDEATHSIG = 1
CLOCK_TICK = os.sysconf("SC_CLK_TCK")
DESCRIPTORS_WANTED = 20000

NGINX_MODULES = "/usr/lib/nginx/modules"

# One worker: with two, nchan is slower in every line here, because each publish then has to cross
# from one process to the other.
NGINX_CONF = """
load_module {modules}/ngx_nchan_module.so;
{user}
daemon off;
worker_processes {workers};
worker_rlimit_nofile {descriptors};
pid {dir}/nginx.pid;
error_log {dir}/error.log error;
events {{
    use epoll;
    worker_connections {connections};
}}
http {{
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_buffer_size 16k;
    client_body_in_single_buffer on;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    nchan_shared_memory_size 1G;
    nchan_message_buffer_length {keep};
    nchan_message_timeout 1h;
    nchan_subscriber_timeout 0;
    {upstream}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /pub {{
            {redis_pass}
            nchan_publisher;
            nchan_channel_id $arg_id;
        }}
        location = /sub {{
            {redis_pass}
            nchan_subscriber longpoll;
            nchan_channel_id $arg_id;
            nchan_subscriber_first_message oldest;
        }}
        location = /status {{
            nchan_stub_status;
        }}
    }}
}}
"""

REDIS_CONF = """
bind 127.0.0.1
port {port}
dir {dir}
daemonize no
save ""
appendonly yes
appendfsync always
auto-aof-rewrite-percentage 0
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, what, log):
    """Waits until condition() is true and returns it; fails with the server's log."""
    deadline = time.monotonic() + START_SECONDS
    while not (result := condition()):
        if time.monotonic() > deadline:
            with open(log, errors="replace") as file:
                raise RuntimeError(f"{what} did not start:\n{file.read()[-2000:]}")
        time.sleep(0.02)
    return result


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def ask(port, request):
    """Sends a request and returns all that comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), 5) as conn:
        conn.sendall(request)
        reply = b""
        while piece := conn.recv(65536):
            reply += piece
    return reply


def children_of(parent):
    children = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) == parent:
                        children.append(int(name))
            except OSError:
                pass  # it has just ended
    return children


def cpu_seconds_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICK


def before_exec():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Server:
    """One server under test, which may be several processes. Use it as a context manager."""

    name = dialect = None

    def __init__(self, directory, keep):
        self.directory = directory
        self.keep = keep  # updates kept a channel
        self.port = None
        self.publish_port = None  # of another front end on the same store, which takes the pushes
        self.redis_port = self.redis = None  # of its redis-server, if it has one
        self.log = os.path.join(directory, "log")
        self.processes = []

    def start(self):
        raise NotImplementedError

    def spawn(self, *command):
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=before_exec,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")}, start_new_session=True)
        self.processes.append(process)
        return process

    def start_redis(self):
        self.redis_port = free_port()
        conf = self.write("redis.conf", REDIS_CONF.format(port=self.redis_port, dir=self.directory))
        self.redis = self.spawn("/usr/bin/redis-server", conf)
        wait_until(lambda: accepts(self.redis_port), "redis-server", self.log)

    def redis_stats(self):
        """What redis has done so far: CPU time, scripts called, commands run (in scripts too)."""
        reply = ask(self.redis_port, b"INFO all\r\nQUIT\r\n")
        info = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
        return {"cpu_us": (float(info["used_cpu_user"]) + float(info["used_cpu_sys"])) * 1e6,
                "evalsha": int(re.match(r"calls=(\d+)", info.get("cmdstat_evalsha", "calls=0"))[1]),
                "commands": int(info["total_commands_processed"])}

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def pids(self):
        return [pid for process in self.processes for pid in (process.pid, *children_of(process.pid))]

    def front_pids(self):
        """All but redis, which never forks with the REDIS_CONF above."""
        return [pid for pid in self.pids() if not self.redis or pid != self.redis.pid]

    def cpu_seconds(self):
        return sum(cpu_seconds_of(pid) for pid in self.pids())

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        pids = self.pids()
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                process.wait()
        self.processes = []


class Longline(Server):
    dialect = "longline"
    binary = "build/longline"
    provider = None

    def start(self, *options):
        self.spawn(self.binary, "serve", "--listen", "127.0.0.1:0", "--data-provider", self.provider,
                   "--data-path", os.path.join(self.directory, "longline.db"),
                   "--channel-storage-maxsize", str(self.keep), "--idle-timeout", "3600", *options)
        self.port = wait_until(self.listening, self.name, self.log)

    def listening(self):
        """The port that it listens on, or None."""
        if self.processes[-1].poll() is not None:
            raise RuntimeError(f"{self.name} ended:\n{open(self.log).read()[-2000:]}")
        with open(self.log, errors="replace") as log:
            for line in log:
                if "listening address=127.0.0.1:" in line and line.endswith("\n"):
                    return int(line.partition("address=127.0.0.1:")[2].split()[0])
        return None


class LonglineSqlite(Longline):
    name = "longline sqlite"
    provider = "sqlite"


class LonglineMemory(Longline):
    name = "longline memory"
    provider = "memory"


class LonglineRedis(Longline):
    name = "longline redis"
    provider = "redis"

    def start(self):
        if not self.redis_port:
            self.start_redis()
        super().start("--redis-port", str(self.redis_port))
        wait_until(self.connected, "longline's connection to redis", self.log)

    def connected(self):
        with open(self.log, errors="replace") as log:
            return "redis ready" in log.read()


class Nchan(Server):
    name = "nchan memory"
    dialect = "nchan"
    workers = 1

    def start(self):
        self.port = free_port()
        descriptors = min(DESCRIPTORS_WANTED, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        upstream = redis_pass = ""
        if self.redis_port:
            upstream = f"upstream redis {{ nchan_redis_server redis://127.0.0.1:{self.redis_port}; }}"
            redis_pass = "nchan_redis_pass redis;"
        conf = self.write("nginx.conf", NGINX_CONF.format(
            modules=NGINX_MODULES, user="user root;" if os.geteuid() == 0 else "", workers=self.workers,
            descriptors=descriptors, connections=descriptors - 500, dir=self.directory, keep=self.keep,
            port=self.port, upstream=upstream, redis_pass=redis_pass))
        master = self.spawn("/usr/sbin/nginx", "-c", conf, "-e", os.path.join(self.directory, "error.log"))
        # The socket accepts before the worker exists, and the worker's CPU and memory must count.
        wait_until(lambda: len(children_of(master.pid)) >= self.workers, self.name, self.log)
        wait_until(self.status, self.name, self.log)

    def status(self):
        """The status page, or nothing while no worker answers."""
        try:
            reply = ask(self.port, b"GET /status HTTP/1.0\r\n\r\n")
        except OSError:
            return b""
        return reply if b"nchan version" in reply else b""


class NchanRedis(Nchan):
    name = "nchan+redis"

    def start(self):
        if not self.redis_port:
            self.start_redis()
        super().start()
        wait_until(self.connected, "nchan's connection to redis", self.log)

    def connected(self):
        return b"redis connected servers: 1" in self.status()


class Pair(Server):
    """Two front ends on one redis-server: the first takes the polls, the second the pushes."""

    kind = None

    def __init__(self, directory, keep):
        super().__init__(directory, keep)
        self.fronts = []

    def start(self):
        for name in ("polls", "pushes"):
            directory = os.path.join(self.directory, name)
            os.mkdir(directory)
            front = self.kind(directory, self.keep)
            front.redis_port = self.redis_port
            self.fronts.append(front)
            front.start()
            self.redis_port = front.redis_port
        self.port, self.publish_port = (front.port for front in self.fronts)
        self.redis = self.fronts[0].redis

    def pids(self):
        return [pid for front in self.fronts for pid in front.pids()]

    def pids_by_role(self):
        polls, pushes = (front.front_pids() for front in self.fronts)
        return {"polls": polls, "pushes": pushes, "redis": [self.redis.pid]}

    def stop(self):
        for front in reversed(self.fronts):
            front.stop()


class LonglineRedisPair(Pair):
    name, dialect, kind = LonglineRedis.name, LonglineRedis.dialect, LonglineRedis


class NchanRedisPair(Pair):
    name, dialect, kind = NchanRedis.name, NchanRedis.dialect, NchanRedis
