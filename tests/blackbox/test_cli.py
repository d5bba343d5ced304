"""The command line: help, `new`, `health`, settings, and starts that fail with one clear line."""

import contextlib
import json
import re
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from keys import after, new_keys
from longline_server import BINARY, PATIENCE_S, Server, environment
from redis_server import free_port

SETTINGS = """
LISTEN DATA_PROVIDER DATA_PATH SYNC CHANNEL_STORAGE_MAXSIZE DATA_TTL MAX_BODY DATA_MAX_BYTES CACHE_SIZE CAPTURE_HEADERS STRICT_JSON PURGE
MAX_CONNECTIONS IO_URING RATE_LIMIT_FRAME RATE_LIMIT_LIMIT TRUST_PROXY REDIS_URL REDIS_HOST REDIS_PORT REDIS_USER REDIS_PASS REDIS_DB
REDIS_PREFIX REDIS_TLS REDIS_TLS_CA REDIS_SENTINEL REDIS_MASTER REDIS_SENTINEL_PASS REDIS_WAIT REDIS_TIMEOUT LOG_LEVEL
LOG_FORMAT REQUEST_TIMEOUT IDLE_TIMEOUT BUFFER_SIZE
""".split()


def flag_of(setting):
    return "--" + setting.lower().replace("_", "-")


def run(*arguments, **settings):
    """Runs longline until it ends."""
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
    )


def is_refused(ended, code=2):
    """Checks that it ended with this code, no stdout, and one line on stderr, which it returns."""
    assert ended.returncode == code, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.strip()
    return line


# --- help, version, new ---


def test_serve_help_lists_every_setting_with_flag_and_default():
    ended = run("serve", "--help")
    assert ended.returncode == 0 and ended.stderr == ""
    for setting in SETTINGS:
        assert re.search(rf"(?<![A-Z_]){setting}(?![A-Z_])", ended.stdout), setting
        assert re.search(rf"{flag_of(setting)}(?![a-z-])", ended.stdout), flag_of(setting)
    for default in ("0.0.0.0:3000", "sqlite", "./longline.db", "always", "1000", "604800", "33554432", "loopback,private", "lpolling:"):
        assert default in ended.stdout, default


def test_help_and_version():
    for arguments in (["--help"], ["serve", "--help"], ["health", "--help"], ["new", "--help"]):
        ended = run(*arguments)
        assert ended.returncode == 0 and ended.stderr == "" and "longline" in ended.stdout
    for command in ("serve", "health", "new"):
        assert command in run("--help").stdout
    for word in ("--version", "version"):
        ended = run(word)
        assert ended.returncode == 0 and re.search(r"\d+\.\d+", ended.stdout)


def test_new_prints_one_fresh_secret_url():
    urls = set()
    for _ in range(20):
        ended = run("new")
        assert ended.returncode == 0 and ended.stderr == ""
        assert re.fullmatch(r"http://localhost:3000/[A-Za-z0-9_-]{22}\n", ended.stdout)
        urls.add(ended.stdout)
    assert len(urls) == 20
    assert re.fullmatch(r"https://hooks\.example/in/[A-Za-z0-9_-]{22}\n", run("new", "https://hooks.example/in").stdout)


@pytest.mark.parametrize("base", ["localhost:3000", "hooks.example/in", "127.0.0.1", "[::1]:3000", "[::1]"])
def test_new_understands_an_address_without_http(base):
    assert run("new", base).stdout.startswith(f"http://{base}/")
    assert keys_of(run("new", "--keys", base))[0].startswith(f"http://{base}/r_")
    (first, *_) = addresses = [f"{base}/{key}" for key in new_keys()]
    assert keys_of(run("new", "--keys", first)) == [f"http://{address}" for address in addresses]


@pytest.mark.parametrize("base", ["ftp://x", "ws://localhost:3000", "http://", "https:///x", "localhost:port", "mailto:x", "http://a:b/", "a b", "h?x", "https://h/x#y", "http://:3000", ":3000"])
def test_new_refuses_what_is_no_web_server(base):
    for arguments in (["new", base], ["new", "--keys", base]):
        assert is_refused(run(*arguments)) == "longline: BASE_URL is the address of a web server: http://localhost:3000"


def test_a_new_url_is_a_channel(start):
    server = start()
    url = run("new", f"http://127.0.0.1:{server.port}").stdout.strip()
    assert server.push(url[url.rindex("/") :]) == 1


LABELS = ("keep to yourself, may do everything:", "give to those who read:", "paste where services send:")


def keys_of(ended, labels=LABELS):
    """The addresses of the labelled lines, which are aligned."""
    assert ended.returncode == 0 and ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert [line.rsplit(maxsplit=1)[0] for line in lines] == list(labels)
    assert len({line.rindex(" ") for line in lines}) == 1
    return [line.split()[-1] for line in lines]


def test_new_keys_are_three_labelled_addresses():
    seen = set()
    for _ in range(20):
        all_, read, send = keys_of(run("new", "--keys", "https://hooks.example/in/"))
        base, key = all_.rsplit("/", 1)
        assert base == "https://hooks.example/in" and re.fullmatch("r_[a-z2-7]{26}", key)
        assert (read, send) == (f"{base}/{after(key)}", f"{base}/{after(after(key))}")
        seen.add(key)
    assert len(seen) == 20
    assert keys_of(run("new", "--keys"))[0].startswith("http://localhost:3000/r_")


def test_new_keys_as_json_are_one_line():
    ended = run("new", "--json", "--keys", 'https://x.example/"')
    assert ended.returncode == 0 and ended.stderr == "" and ended.stdout.count("\n") == 1
    made = json.loads(ended.stdout)
    assert list(made) == ["all", "read", "send"]
    assert all(address.startswith('https://x.example/"/') for address in made.values())
    assert made["send"].endswith(after(after(made["all"][-28:])))


@pytest.mark.parametrize("base", ["https://x.example/", "https://x.example/in/", "/", ""])
def test_what_follows_from_a_key_is_printed(base):
    keys = new_keys()
    addresses = [base + key for key in keys]
    for first in range(3):
        assert keys_of(run("new", "--keys", addresses[first]), LABELS[first:]) == addresses[first:]
        assert keys_of(run("new", "--keys", addresses[first] + "/"), LABELS[first:]) == addresses[first:]
        told = json.loads(run("new", "--keys", "--json", addresses[first]).stdout)
        assert list(told.items()) == list(zip(("all", "read", "send"), addresses, strict=True))[first:]


def test_what_is_nearly_a_key_is_a_base():
    for base in ("https://x.example/a" + "r_" + "a" * 26, "https://x.example/r_" + "a" * 25, "https://x.example/R_" + "a" * 26):
        assert keys_of(run("new", "--keys", base))[0].startswith(base + "/r_")
    key = "https://x.example/r_" + "a" * 26
    assert re.fullmatch(re.escape(key) + r"/[A-Za-z0-9_-]{22}\n", run("new", key).stdout), "without --keys all is as ever"


# --- health ---


@pytest.mark.parametrize("listen", ["127.0.0.1:{}", "0.0.0.0:{}", "localhost:{}", ":{}", "[::1]:{}", "[::]:{}", "unix:{}.sock,127.0.0.1:0"])
def test_health_asks_the_first_address_that_the_server_has(start, tmp_path, listen):
    if "[" in listen and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    listen = listen.format(tmp_path / "l" if listen.startswith("unix:") else free_port())
    server = start(LISTEN=listen)
    for ended in (run("health", LISTEN=listen), run("health", "--listen", listen)):
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == server.get("/-/health").text + "\n"
    server.stop()
    ended = run("health", LISTEN=listen)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert re.fullmatch(r"no answer from \S+: .+\n", ended.stdout)


def test_health_of_a_server_that_does_not_serve(start):
    """Redis is away: it answers, with a 503."""
    server = start(DATA_PROVIDER="redis", REDIS_PORT=free_port())
    ended = run("health", LISTEN=server.addresses[0])
    assert (ended.returncode, ended.stdout) == (1, server.get("/-/health").text + "\n")
    assert '"ok":false' in ended.stdout


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\nhello", b"SSH-2.0\r\n\r\n" + b"x" * 10000])
def test_health_does_not_take_anything_for_longline(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with ThreadPoolExecutor() as pool:
            ended = pool.submit(run, "health", LISTEN=f"127.0.0.1:{listener.getsockname()[1]}")
            with listener.accept()[0] as sock:
                sock.sendall(answer)
            assert (ended.result().returncode, ended.result().stderr) == (1, "")


def test_health_does_not_wait_for_ever():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = run("health", LISTEN=f"127.0.0.1:{listener.getsockname()[1]}")
    assert (ended.returncode, ended.stderr) == (1, "") and "timed out" in ended.stdout


def test_health_does_not_wait_for_an_answer_that_drips():
    def drip(listener):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            while True:
                connection.sendall(b"x")
                time.sleep(0.2)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        pool.submit(drip, listener)
        ended = run("health", LISTEN=f"127.0.0.1:{listener.getsockname()[1]}")
    assert (ended.returncode, ended.stderr) == (1, "") and "timed out" in ended.stdout


# --- refusals ---

BAD_SETTINGS = [
    ("LISTEN", "nonsense"),
    ("LISTEN", "127.0.0.1:99999"),
    ("LISTEN", "127.0.0.1:x"),
    ("LISTEN", "127.0.0.1:0,"),
    ("LISTEN", "unix:"),
    ("LISTEN", "unix:" + "/x" * 100),
    ("LISTEN", "[::1"),
    ("DATA_PROVIDER", "mongo"),
    ("SYNC", "sometimes"),
    ("CHANNEL_STORAGE_MAXSIZE", "0"),
    ("CHANNEL_STORAGE_MAXSIZE", "-1"),
    ("CHANNEL_STORAGE_MAXSIZE", "30x"),
    ("CHANNEL_STORAGE_MAXSIZE", "1.5"),
    ("CHANNEL_STORAGE_MAXSIZE", "99999999999999999999"),
    ("DATA_TTL", "-1"),
    ("DATA_TTL", "week"),
    ("REDIS_DATA_TTL", "week"),
    ("MAX_BODY", "-5"),
    ("MAX_BODY", "1M1"),
    ("DATA_MAX_BYTES", "-1"),
    ("CACHE_SIZE", "big"),
    ("CAPTURE_HEADERS", "perhaps"),
    ("MAX_CONNECTIONS", "many"),
    ("RATE_LIMIT_FRAME", "0"),
    ("RATE_LIMIT_LIMIT", "-1"),
    ("TRUST_PROXY", "everyone and no one"),
    ("TRUST_PROXY", "10.0.0.0/99"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("REQUEST_TIMEOUT", "0x10"),
    ("IDLE_TIMEOUT", "-1"),
    ("BUFFER_SIZE", "lots"),
]


@pytest.mark.parametrize("setting,value", BAD_SETTINGS)
def test_a_bad_setting_stops_the_start_with_one_line_that_names_it(setting, value, tmp_path):
    safe = {"LISTEN": "127.0.0.1:0", "DATA_PATH": str(tmp_path / "x.db")}
    line = is_refused(run("serve", **{**safe, setting: value}))
    assert setting in line or flag_of(setting) in line
    line = is_refused(run("serve", f"{flag_of(setting)}={value}", **safe))
    assert setting in line or flag_of(setting) in line


def test_a_body_that_fills_the_buffers_stops_the_start(tmp_path):
    line = is_refused(run("serve", LISTEN="127.0.0.1:0", DATA_PATH=tmp_path / "x.db", MAX_BODY=16_777_217, BUFFER_SIZE=64))
    assert line == "longline: BUFFER_SIZE must be at least four times MAX_BODY"


@pytest.mark.parametrize(
    "arguments",
    [["serve", "--nope"], ["serve", "--nope=1"], ["serve", "--listen"], ["serve", "extra"], ["nonsense"], ["--nope"], ["new", "a", "b"], ["new", "--json"], ["new", "--keys", "a", "b"], ["new", "--key"], ["health", "x"], ["health", "--listen=x"], ["check"], ["check", "--nope"], ["check", "a", "b"], []],
)
def test_bad_usage_is_one_line(arguments):
    is_refused(run(*arguments, LISTEN="127.0.0.1:0"))


BAD_REDIS_SETTINGS = [
    ("REDIS_PORT", "0"),
    ("REDIS_PORT", "65536"),
    ("REDIS_PORT", "redis"),
    ("REDIS_DB", "-1"),
    ("REDIS_DB", "three"),
    ("REDIS_URL", "127.0.0.1:6379"),
    ("REDIS_URL", "http://127.0.0.1:6379"),
    ("REDIS_URL", "redis://127.0.0.1:port"),
    ("REDIS_URL", "redis://127.0.0.1:6379/three"),
    ("REDIS_URL", "redis://user:pa%zzss@127.0.0.1:6379"),
    ("REDIS_URL", "unix://no/absolute/path"),
    ("REDIS_URL", "unix:///path?db=three"),
    ("REDIS_TLS", "perhaps"),
    ("REDIS_SENTINEL", "127.0.0.1:port"),
    ("REDIS_SENTINEL", "127.0.0.1:26379"),  # of which master?
    ("REDIS_WAIT", "2"),
    ("REDIS_WAIT", "two:100"),
    ("REDIS_WAIT", "1:-100"),
    ("REDIS_USER", "app"),  # with which password?
    ("REDIS_HOST", "h" * 256),
    ("REDIS_PREFIX", "p" * 1001),
    ("REDIS_TIMEOUT", "soon"),
    ("REDIS_TIMEOUT", "-1"),
]


@pytest.mark.parametrize("data_provider", ["redis", "sqlite", "memory"])
@pytest.mark.parametrize("setting,value", BAD_REDIS_SETTINGS)
def test_a_bad_setting_of_redis_stops_the_start_with_one_line_that_names_it(setting, value, data_provider, tmp_path):
    safe = {"LISTEN": "127.0.0.1:0", "DATA_PROVIDER": data_provider, "DATA_PATH": str(tmp_path / "x.db")}
    for line in (is_refused(run("serve", **{**safe, setting: value})), is_refused(run("serve", f"{flag_of(setting)}={value}", **safe))):
        assert setting in line or flag_of(setting) in line


def test_a_missing_authority_stops_the_start(tmp_path):
    settings = {"LISTEN": "127.0.0.1:0", "DATA_PROVIDER": "redis", "REDIS_URL": "rediss://localhost"}
    ended = run("serve", REDIS_TLS_CA=tmp_path / "nowhere.crt", **settings)
    assert ended.returncode in (1, 2) and "nowhere.crt" in ended.stderr
    assert "listening" not in ended.stderr


@pytest.mark.parametrize("bad", [{"REDIS_PORT": "x"}, {"REDIS_URL": "redis://user:hunter2-secret@host:port"}, {"REDIS_WAIT": "x"}])
def test_a_password_is_not_repeated(bad):
    settings = {"REDIS_PASS": "hunter2-secret", "REDIS_SENTINEL_PASS": "hunter2-secret", "LISTEN": "127.0.0.1:0", **bad}
    line = is_refused(run("serve", "--data-provider", "redis", **settings))
    assert "hunter2-secret" not in line


@pytest.mark.parametrize("data_provider", ["sqlite", "memory", "redis"])
def test_a_taken_port_stops_the_start(start, tmp_path, data_provider):
    server = start()
    taken = f"127.0.0.1:{server.port}"
    ended = run("serve", LISTEN=taken, DATA_PROVIDER=data_provider, DATA_PATH=tmp_path / "other.db", REDIS_HOST=tmp_path / "none.sock")
    assert ended.returncode == 1
    assert taken in ended.stderr and "listening address" not in ended.stderr
    if data_provider != "redis":  # of a Redis that is away there is a warning
        assert is_refused(ended, 1) == f"longline: cannot listen on {taken}: address already in use"
    assert server.get("/-/health").status == 200


def test_a_unix_socket_in_no_folder_names_the_folder(tmp_path):
    listen = f"unix:{tmp_path}/none/s"
    line = is_refused(run("serve", LISTEN=listen, DATA_PATH=tmp_path / "x.db"), 1)
    assert line == f"longline: cannot listen on {listen}: there is no folder {tmp_path}/none/"


def test_a_port_alone_is_every_ipv4_address(start):
    server = start(LISTEN=":0")
    assert server.addresses[0].startswith("0.0.0.0:")
    check_serves(server, server.address)


@pytest.mark.providers("memory")
def test_a_setting_without_effect_is_a_warning(start):
    server = start(DATA_PROVIDER="memory", REDIS_URL="redis://user:hunter2-secret@h", SYNC="never", PORT="80")
    told = re.findall(r"warn  setting without effect (.*)", server.log())
    assert told == ['setting=SYNC needs="DATA_PROVIDER=sqlite"', 'setting=REDIS_URL needs="DATA_PROVIDER=redis"']
    assert "hunter2" not in server.log()


# --- settings ---


@pytest.mark.parametrize("style", ["environment", "flag with space", "flag with ="])
def test_a_setting_by_environment_and_by_flag(start, style):
    flag = flag_of("CHANNEL_STORAGE_MAXSIZE")
    server = {
        "environment": lambda: start(CHANNEL_STORAGE_MAXSIZE=3),
        "flag with space": lambda: start(flags=[flag, "3"]),
        "flag with =": lambda: start(flags=[flag + "=3"]),
    }[style]()
    channel = server.channel()
    for _ in range(5):
        server.push(channel)
    assert server.get(channel).json()["missed"] == 2


def test_the_flag_wins_over_the_environment(start):
    server = start(flags=["--channel-storage-maxsize=2"], CHANNEL_STORAGE_MAXSIZE=4)
    channel = server.channel()
    for _ in range(5):
        server.push(channel)
    assert len(server.get(channel).updates) == 2


def test_an_empty_setting_is_the_default(start):
    server = start(CHANNEL_STORAGE_MAXSIZE="", SYNC="", LOG_FORMAT="", DATA_PROVIDER="")
    assert server.get("/-/health").json()["provider"] == "sqlite"


@pytest.mark.parametrize("name", ["memory", "localtable"])
def test_the_memory_provider_and_its_upstream_name(start, name):
    server = start(DATA_PROVIDER=name)
    channel = server.channel()
    server.push(channel)
    assert server.get("/-/health").json()["provider"] == "memory"
    server.stop()
    assert not list(server.directory.glob("*.db*")), "it wrote to the disk"
    server.start()
    assert server.get(channel).total == 0


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_every_sync_serves(start, sync):
    server = start(SYNC=sync)
    channel = server.channel()
    for i in range(1, 21):
        assert server.push(channel) == i
    assert server.get(channel).total == 20


# --- addresses ---


def check_serves(server, address):
    channel = server.channel()
    with server.client(address=address) as client:
        client.send_request("GET", channel + "?sleep=60")
        server.wait_for_parked(1)
        server.push(channel, '{"n":1}')
        assert client.read_reply().updates == [{"n": 1}]


def test_a_unix_socket(start, tmp_path):
    path = str(tmp_path / "l.sock")
    server = start(LISTEN=f"unix:{path}")
    assert server.address == path
    check_serves(server, path)
    server.kill9()
    server.start()
    check_serves(server, path)


def test_a_file_in_the_place_of_the_unix_socket_is_left_alone(tmp_path):
    path = tmp_path / "precious"
    path.write_text("precious")
    assert run("serve", LISTEN=f"unix:{path}", DATA_PATH=tmp_path / "x.db").returncode == 1
    assert path.read_text() == "precious"


def test_a_unix_socket_that_is_in_use_is_left_alone(start, tmp_path):
    path = str(tmp_path / "l.sock")
    server = start(LISTEN=f"unix:{path}")
    assert run("serve", LISTEN=f"unix:{path}", DATA_PATH=tmp_path / "x.db").returncode == 1
    check_serves(server, path)


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_an_ipv6_address(start):
    server = start(LISTEN="[::1]:0")
    assert server.address[0] == "::1" and server.addresses[0].startswith("[::1]:")
    check_serves(server, server.address)


def test_several_addresses(start, tmp_path):
    from longline_server import parse_address

    path = str(tmp_path / "l.sock")
    server = start(LISTEN=f"127.0.0.1:0,unix:{path},127.0.0.1:0")
    assert len(server.addresses) == 3
    for text in server.addresses:
        check_serves(server, parse_address(text))


# --- files ---


def test_the_data_file_is_for_its_owner_alone(start):
    """It contains secrets: channel names, signatures, whatever was pushed."""
    server = start()
    server.push(server.channel())
    for file in server.directory.glob("longline.db*"):
        assert file.stat().st_mode & 0o077 == 0, f"{file.name}: {file.stat().st_mode:o}"


def test_the_default_data_path_is_in_the_working_directory(start):
    server = start(DATA_PATH="")
    server.push(server.channel())
    assert (server.directory / "longline.db").exists()


def test_the_suite_checks_the_exit_code(tmp_path):
    server = Server(tmp_path / "s")
    server.settings["SYNC"] = "sometimes"
    with pytest.raises(AssertionError, match="ended with 2"):
        server.start()
    server._forget()
