"""A payment reaches the game exactly once."""

import json
import re
import shutil
import socket
import subprocess
import threading

import pytest

from longline_server import wait_until
from program import EXAMPLES

PAY = EXAMPLES / "garrysmod-donate/pay.sh"
GAME = EXAMPLES.parent / "tests/examples/game.lua"
ANN, BOB = "STEAM_0:1:12345", "STEAM_0:0:999"

pytestmark = pytest.mark.skipif(not shutil.which("luajit"), reason="no luajit")


@pytest.fixture
def ledger(tmp_path, read_url):
    """The path of the ledger, in a data folder with the address."""
    folder = tmp_path / "data/donate"
    folder.mkdir(parents=True)
    (folder / "address.txt").write_text(read_url + "\n")
    return folder / "ledger.txt"


@pytest.fixture
def start_game(run, tmp_path, ledger):
    def start(*players, **environment):
        game = run("luajit", GAME, tmp_path / "data", *players, **environment)
        game.wait_for_line("the server is up")
        return game

    return start


def pay(url, payment, steamid, amount):
    subprocess.run([PAY, url, payment, steamid, str(amount)], check=True, timeout=60, capture_output=True)


def booked(ledger):
    """The lines that count: (payment, steamid, amount)."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [tuple(line.split()[1:4]) for line in lines if line.endswith(" ok")]


class LosesReplies:
    """Passes requests on to the server, but hangs up instead of replying to the first few."""

    def __init__(self, address, lost):
        self.address = address
        self.lost = lost
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, socket.create_connection(self.address) as server:
                # curl sends a request as one small packet.
                server.sendall(client.recv(65536))
                reply = server.recv(65536)
                if self.lost:
                    self.lost -= 1
                else:
                    client.sendall(reply)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def test_a_player_gets_the_payment_at_once(send_url, ledger, start_game):
    game = start_game(ANN)
    pay(send_url, "order-1", ANN, 500)
    game.wait_for_line(f"{ANN} sees Your balance is 500")
    pay(send_url, "order-2", ANN, 250)
    game.wait_for_line(f"{ANN} sees Your balance is 750")
    pay(send_url, "order-3", BOB, 1)
    game.wait_for_line("payment order-3 is booked")
    assert booked(ledger) == [("order-1", ANN, "500"), ("order-2", ANN, "250"), ("order-3", BOB, "1")]
    assert len([line for line in game.lines if "sees" in line]) == 2
    assert game.lines.count("the game reads donate/ledger.txt") == 1
    assert game.stderr == ""


def test_the_sender_repeats_and_both_servers_restart_and_it_is_given_once(server, send_url, target, ledger, start_game):
    with LosesReplies(server.address, lost=1) as line:
        game = start_game(ANN)
        pay(send_url.replace(f":{server.port}/", f":{line.port}/"), "order-1", ANN, 500)
    game.wait_for_line("payment order-1 is booked already")
    assert server.get(target).ts == 2
    game.kill()

    pay(send_url, "order-1", ANN, 500)
    pay(send_url, "order-2", ANN, 20)
    server.restart()
    game = start_game(ANN)
    game.wait_for_line("payment order-2 is booked")
    pay(send_url, "order-1", ANN, 500)
    pay(send_url, "order-3", ANN, 3)
    game.wait_for_line("payment order-3 is booked")
    game.kill()

    game = start_game(ANN)
    game.wait_for_line(f"{ANN} sees Your balance is 523")
    assert booked(ledger) == [("order-1", ANN, "500"), ("order-2", ANN, "20"), ("order-3", ANN, "3")]


def test_a_line_torn_at_any_byte_gives_once(send_url, ledger, start_game):
    pay(send_url, "order-1", ANN, 500)
    pay(send_url, "order-2", BOB, 1000)
    game = start_game()
    game.wait_for_line("payment order-2 is booked")
    game.kill()
    whole = ledger.read_bytes()
    second = whole.index(b"\n") + 1
    assert re.fullmatch(rb"2@[0-9a-f]{16} order-2 %s 1000 ok\n" % BOB.encode(), whole[second:])
    expected = [("order-1", ANN, "500"), ("order-2", BOB, "1000")]
    for length in range(second, len(whole)):
        ledger.write_bytes(whole[:length])
        for _ in range(2):
            game = start_game(ANN, BOB)
            game.wait_for_line(f"{BOB} sees Your balance is 1000")
            assert f"{ANN} sees Your balance is 500" in game.lines
            game.kill()
        assert booked(ledger) == expected, f"torn after {length} bytes: {ledger.read_bytes()}"


def test_a_payment_that_is_none_is_not_pushed(server, send_url, target):
    with pytest.raises(subprocess.CalledProcessError):
        pay(send_url, "order-1", ANN, "5OO")
    assert server.get(target).ts == 0


@pytest.mark.parametrize("fits", ["0", "1", "20"])
def test_a_full_disk_gives_nothing_and_the_next_start_does(send_url, ledger, start_game, fits):
    game = start_game(ANN, DISK_FULL=fits)
    pay(send_url, "order-1", ANN, 500)
    pay(send_url, "order-2", ANN, 20)
    game.wait_for_line("the ledger cannot be written")
    game.kill()
    assert booked(ledger) == [] and not any("sees" in line for line in game.lines)
    game = start_game(ANN)
    game.wait_for_line(f"{ANN} sees Your balance is 520")


def test_a_longline_that_lost_its_data_is_read_from_its_start(server, send_url, ledger, start_game):
    ledger.write_text(f"70 order-1 {ANN} 500 ok\n")
    pay(send_url, "order-1", ANN, 500)
    pay(send_url, "order-2", ANN, 20)
    game = start_game(ANN)
    game.wait_for_line(f"{ANN} sees Your balance is 520")
    pay(send_url, "order-3", ANN, 3)
    game.wait_for_line(f"{ANN} sees Your balance is 523")
    assert booked(ledger) == [("order-1", ANN, "500"), ("order-2", ANN, "20"), ("order-3", ANN, "3")]


def test_a_longline_that_lost_its_data_and_has_passed_the_ledger(send_url, ledger, start_game):
    ledger.write_text(f"2@00c0ffee00c0ffee order-1 {ANN} 500 ok\n")
    for n in (2, 3, 4):
        pay(send_url, f"order-{n}", ANN, n)
    game = start_game(ANN)
    game.wait_for_line(f"{ANN} sees Your balance is 509")
    assert booked(ledger) == [("order-1", ANN, "500"), ("order-2", ANN, "2"), ("order-3", ANN, "3"), ("order-4", ANN, "4")]


@pytest.mark.parametrize(
    "update",
    [
        {"payment": "x 1 STEAM_0:1:1 9 ok\n", "steamid": ANN, "amount": 5},
        {"payment": "", "steamid": ANN, "amount": 5},
        {"payment": 7, "steamid": ANN, "amount": 5},
        {"payment": "p", "steamid": "ann", "amount": 5},
        {"payment": "p", "amount": 5},
        {"payment": "p", "steamid": ANN, "amount": -5},
        {"payment": "p", "steamid": ANN, "amount": 0},
        {"payment": "p", "steamid": ANN, "amount": 0.5},
        {"payment": "p", "steamid": ANN, "amount": "5"},
        {"payment": "p", "steamid": ANN, "amount": 1e300},
        [1, 2],
    ],
    ids=str,
)
def test_what_is_no_payment_is_passed_over(server, send_url, target, ledger, start_game, update):
    server.push(target, json.dumps(update).encode())
    pay(send_url, "order-1", ANN, 500)
    game = start_game(ANN)
    game.wait_for_line(f"{ANN} sees Your balance is 500")
    assert booked(ledger) == [("order-1", ANN, "500")]
    assert "[donate] update 1 is no payment" in game.lines
    assert game.stderr == ""


def test_without_an_address_it_says_where_to_write_it(ledger, run, tmp_path):
    (ledger.parent / "address.txt").unlink()
    game = run("luajit", GAME, tmp_path / "data")
    game.wait_for_line("[donate] write the address into data/donate/address.txt")
    wait_until(lambda: "the server is up" in game.lines)
