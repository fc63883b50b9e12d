"""Clients that vanish in the middle of everything, a thousand times: nothing of them is left."""

from __future__ import annotations

import random
import socket
from concurrent.futures import ThreadPoolExecutor

from tests.faults.census import Census, memory, until, wait_until_as_before
from tests.faults.client import Box, Connection, Stream, head
from tests.faults.load import ECHO
from tests.faults.servers import FaultServer, Identity

TIMES = 1000
THREADS = 4
MEMORY = 4 << 20
"""Bytes that a server may grow by: allocators keep some of what was in use at once."""
ROUNDS = 3
"""What is lost is lost each time; what was in use at once on a busy machine is kept only the first time."""


def start(box: Box) -> Connection:
    return box.start("seq 5000; sleep 0.05")


def start_unread(box: Box) -> Connection:
    return box.open_stream("/process.Process/Start", {"process": {"cmd": "/bin/true"}, "stdin": False})


def connect(box: Box) -> Connection:
    return box.open_stream("/process.Process/Connect", {"process": {"tag": "long"}}).begun()


def watch(box: Box) -> Connection:
    return box.watch("/home/user")


def upload(box: Box) -> Connection:
    connection = Connection(box.client.port)
    fields = box.fields(kind="application/octet-stream")
    connection.send(head("POST", "/files?path=upload", fields, 1_000_000) + bytes(300_000))
    return connection


def download(box: Box) -> Connection:
    connection = Connection(box.client.port)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.send(head("GET", "/files?path=large", box.fields(), 0))
    connection.head()
    return connection


def port(box: Box) -> Connection:
    connection = Connection(box.client.port)
    connection.send(head("GET", "/", box.fields(8000), 0))
    return connection


def tunnel(box: Box) -> Connection:
    connection = Connection(box.client.port)
    fields = {**box.fields(8000), "Connection": "Upgrade", "Upgrade": "websocket"}
    connection.send(head("GET", "/", fields, 0) + b"first bytes")
    return connection


def half_a_head(box: Box) -> Connection:
    connection = Connection(box.client.port)
    connection.send(head("GET", "/files", box.fields(), 0)[:-10])
    return connection


def creation(box: Box) -> Connection:
    # A client that is held up may vanish only after its answer, and owns a sandbox: that one times out.
    content = b'{"templateID": "base", "timeout": 30}'
    connection = Connection(box.client.port)
    fields = {"X-API-Key": box.client.api_key, "Content-Type": "application/json"}
    connection.send(head("POST", "/v2/sandboxes", fields, len(content)) + content)
    return connection


KINDS = (start, start_unread, connect, watch, upload, download, port, tunnel, half_a_head, creation)


def vanish(box: Box, times: int, seed: int) -> None:
    """Begin something and go away, many times, in threads; each kind as often as the others."""

    def work(number: int) -> None:
        chance = random.Random(seed + number)
        for turn in range(number, times, THREADS):
            KINDS[turn // 2 % len(KINDS)](box).close(reset=chance.random() < 0.5)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))  # which raises what a thread did


def test_clients_vanish(who: Identity, seed: int) -> None:
    with FaultServer(who) as server:
        # As many at once as there ever will be: user namespaces are kept for sandboxes to come.
        for spare in [server.client().create() for _ in range(8 * THREADS)]:
            spare.kill()
        box = server.client().create()
        box.write("large", bytes(5_000_000))
        serving = box.start(f"exec python3 -S -c '{ECHO}'")
        serving.next()
        long: Stream = box.start("exec sleep 1000", tag="long")
        vanish(box, 10 * len(KINDS), seed)
        settle(box)
        before = Census.of(server)
        growth: list[int] = []
        while not growth or growth[-1] >= MEMORY:
            assert len(growth) < ROUNDS, growth
            bytes_before = memory(server)
            vanish(box, TIMES, seed + len(growth))
            assert len(server.client().living()) < TIMES / len(KINDS) / 4, "creations are not undone"
            settle(box)
            wait_until_as_before(server, before)
            growth.append(memory(server) - bytes_before)
        assert box.run("echo here") == "here\n"
        assert server.client().living() == [box.id]
        serving.close()
        long.close()


def settle(box: Box) -> None:
    """Wait until what was begun for clients that have gone is over."""

    def quiet() -> bool:
        return box.run("pgrep -c 'seq|sleep|true' || true") == "1\n" and box.client.living() == [box.id]

    until(quiet, lambda: box.run("ps aux"), seconds=40)
