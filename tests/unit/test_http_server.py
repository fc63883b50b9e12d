"""What a server does with clients that are many, slow, gone, or in its way; on HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import asyncio
import http.client
import os
import queue
import resource
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from sandbox_local.http import FileSlice, HttpError, Limits, Request, Response, listen
from tests.unit.engine_testbed import LOOPS, WAIT, Running, serving
from tests.unit.http2_client import Http2


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


class Site:
    """A handler that tells what happens to it."""

    def __init__(self, directory: Path) -> None:
        self.events: queue.Queue[str] = queue.Queue()
        self.produced = 0
        self.consumed = 0
        self.go_on = asyncio.Event()
        self.file = directory / "file"
        self.file.write_bytes(os.urandom(3 << 20))

    async def __call__(self, request: Request) -> Response:
        answer: Response = await getattr(self, request.path[1:])(request)
        return answer

    def happened(self) -> str:
        return self.events.get(timeout=WAIT)

    async def hello(self, _: Request) -> Response:
        return Response(200, {}, b"hello")

    async def wait(self, _: Request) -> Response:
        self.events.put("waiting")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.events.put("cancelled")
            raise
        return Response(200, {}, b"done")

    async def stream(self, _: Request) -> Response:
        return Response(200, {}, self._ticks())

    async def _ticks(self) -> AsyncIterator[bytes]:
        try:
            yield b"tick"
            self.events.put("ticked")
            await self.go_on.wait()
            yield b"tock"
        finally:
            self.events.put("closed")

    async def flood(self, _: Request) -> Response:
        return Response(200, {}, self._flood())

    async def _flood(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.produced += 65536
                yield bytes(65536)
        finally:
            self.events.put("closed")

    async def burst(self, _: Request) -> Response:
        return Response(200, {}, self._burst())

    async def _burst(self) -> AsyncIterator[bytes]:
        for _ in range(500):
            yield b"event"

    async def count(self, request: Request) -> Response:
        size = 0
        async for chunk in request.body:
            size += len(chunk)
        return Response(200, {}, b"%d" % size)

    async def hoard(self, request: Request) -> Response:
        """Takes one piece of the body and then no more."""
        self.consumed = len(await anext(request.body))
        return await self.wait(request)

    async def save(self, request: Request) -> Response:
        """Stores the body in a file."""
        self.consumed = len(await anext(request.body)) if request.parameter("first") else 0
        fd = os.open(request.parameter("to") or self.file, os.O_WRONLY)
        try:
            self.events.put("saving")
            await request.body.save(fd)
        except OSError as error:
            raise HttpError(507, error.strerror or "") from None
        finally:
            os.close(fd)
            self.events.put("saved")
        return Response(200, {}, b"%d" % self.consumed)

    async def download(self, request: Request) -> Response:
        fd = os.open(self.file, os.O_RDONLY)
        offset, length = int(request.parameter("offset") or 0), int(request.parameter("length") or 0)
        return Response(200, {}, FileSlice(fd, offset, length))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(params=LOOPS)
def server(request: pytest.FixtureRequest, site: Site) -> Iterator[Running]:
    with serving(site, limits=Limits(header_seconds=0.8, linger_seconds=0.2), loop=request.param) as running:
        yield running


def is_open(path: Path) -> bool:
    """Whether this process has a descriptor of a file."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass
    return str(path) in links


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether a condition that another thread brings about comes true."""
    for _ in range(int(WAIT * 100)):
        if condition():
            return True
        threading.Event().wait(0.01)
    return False


def test_both_versions_of_http_are_spoken_on_one_port(server: Running) -> None:
    with server.connect() as wire, Http2(server.port) as http2:
        assert wire.ask(get("/hello")).body == b"hello"
        assert http2.ask("GET", "/hello").body == b"hello"


@pytest.mark.parametrize("size", range(1, 24))
def test_version_is_told_however_the_first_bytes_are_split(site: Site, size: int) -> None:
    with serving(site) as server:
        with Http2(server.port, first_send=size) as http2:
            assert http2.ask("GET", "/hello").status == 200
        with server.connect() as wire:
            message = b"PROPFIND /hello HTTP/1.1\r\nHost: h\r\n\r\n"
            wire.send(message[:size])
            assert wire.ask(message[size:]).status == 200


def test_event_followed_by_silence_leaves_at_once(server: Running, site: Site) -> None:
    with server.connect() as wire, Http2(server.port) as http2:
        wire.send(get("/stream"))
        assert site.happened() == "ticked"
        wire.until(b"\r\n\r\n")
        assert wire.exactly(9) == b"4\r\ntick\r\n"
        stream = http2.send("GET", "/stream")
        assert http2.wait_for_body(stream, 4)
        assert site.happened() == "ticked"


def test_events_that_are_ready_together_travel_together(server: Running) -> None:
    with server.connect() as wire, Http2(server.port) as http2:
        wire.send(get("/burst"))
        wire.until(b"\r\n\r\n")
        assert wire.until(b"\r\n") == b"%x" % 2500
        answer = http2.ask("GET", "/burst")
        assert answer.body == b"event" * 500
        assert answer.data_frames <= 2


def test_client_that_goes_away_cancels_its_handler(server: Running, site: Site) -> None:
    with server.connect() as wire:
        wire.send(get("/wait"))
        assert site.happened() == "waiting"
    assert site.happened() == "cancelled"
    with Http2(server.port) as http2:
        http2.send("GET", "/wait")
        assert site.happened() == "waiting"
    assert site.happened() == "cancelled"


def test_client_that_goes_away_closes_the_iterator_it_was_reading(server: Running, site: Site) -> None:
    with server.connect() as wire:
        wire.send(get("/stream"))
        assert site.happened() == "ticked"
    assert site.happened() == "closed"
    with Http2(server.port) as http2:
        stream = http2.send("GET", "/stream")
        assert site.happened() == "ticked"
        http2.reset(stream)
        assert site.happened() == "closed"
        assert http2.ask("GET", "/hello").status == 200


def test_client_that_goes_away_in_the_middle_of_its_body_cancels_the_handler(
    server: Running, site: Site
) -> None:
    with server.connect() as wire:
        wire.send(b"POST /hoard HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx")
        assert site.happened() == "waiting"
    assert site.happened() == "cancelled"


@pytest.mark.parametrize("linger", [b"\0\0\0\0\0\0\0\0", b"\1\0\0\0\0\0\0\0"], ids=["closes", "resets"])
def test_client_that_vanishes_while_nobody_reads_its_body_is_noticed(
    server: Running, site: Site, linger: bytes
) -> None:
    with server.connect() as wire:
        wire.send(b"POST /hoard HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n" + bytes(1_000_000))
        assert site.happened() == "waiting"
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert site.happened() == "cancelled"


def test_slow_reader_holds_the_producer_back_and_bounds_the_memory(server: Running, site: Site) -> None:
    with server.connect(receive_buffer=65536) as wire:
        wire.send(get("/flood"))
        wire.until(b"\r\n\r\n")
        assert settled(lambda: site.produced)
        held = site.produced
        assert held < 16 << 20
        wire.exactly(8 << 20)
        assert eventually(lambda: site.produced > held)
    assert site.happened() == "closed"


def test_slow_http2_reader_holds_the_producer_back_by_its_window(server: Running, site: Site) -> None:
    with Http2(server.port, window=65535) as http2:
        stream = http2.send("GET", "/flood")
        assert http2.wait_for_body(stream, 65535)
        assert settled(lambda: site.produced)
        assert site.produced < 1 << 20
        http2.reset(stream)
        assert site.happened() == "closed"


def settled(value: Callable[[], int]) -> bool:
    """Whether a number that another thread counts up comes to rest."""
    last = -1
    for _ in range(int(WAIT * 20)):
        if last == (last := value()):
            return True
        threading.Event().wait(0.05)
    return False


def test_body_is_read_no_faster_than_the_handler_takes_it(server: Running, site: Site) -> None:
    with server.connect() as wire:
        wire.send(b"POST /hoard HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        wire.sock.settimeout(0.5)
        assert wire.send_until_refused(bytes(1 << 20), 95) < 32


def test_http2_body_is_read_no_faster_than_the_handler_takes_it(server: Running, site: Site) -> None:
    with Http2(server.port) as http2:
        stream = http2.send("POST", "/hoard", end=False)
        sent = http2.upload(stream, 100 << 20)
        assert site.happened() == "waiting"
        assert sent <= 2 * Limits().h2_stream_window
        assert http2.ask("GET", "/hello").status == 200


def test_large_uploads_arrive_whole(server: Running) -> None:
    with server.connect() as wire:
        wire.send(b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 30000000\r\n\r\n")
        wire.send(bytes(30_000_000))
        assert wire.answer().body == b"30000000"
    with Http2(server.port) as http2:
        stream = http2.send("POST", "/count", end=False)
        assert http2.upload(stream, 30_000_000) == 30_000_000
        http2.end(stream)
        assert http2.answer(stream).body == b"30000000"


def save(rest: bytes, query: bytes = b"") -> bytes:
    return b"POST /save%b HTTP/1.1\r\nHost: h\r\n%b" % (query, rest)


@pytest.mark.parametrize("size", [1, 5 << 20])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_body_is_saved_whole_and_the_next_request_answered(
    server: Running, site: Site, size: int, expect: bytes
) -> None:
    body = os.urandom(size)
    with server.connect() as wire:
        for _ in range(2):
            site.file.write_bytes(b"")
            wire.send(save(b"Content-Length: %d\r\n%b\r\n" % (size, expect)))
            if expect:
                assert wire.answer().status == 100
            wire.send(body + get("/hello"))  # what follows the body is no part of it
            assert wire.answer().body == b"0"
            assert wire.answer().body == b"hello"
            assert site.file.read_bytes() == body


@pytest.mark.parametrize("chunked", [False, True])
def test_rest_of_a_body_is_saved_however_it_is_framed(server: Running, site: Site, chunked: bool) -> None:
    body = os.urandom(5 << 20)
    site.file.write_bytes(b"")
    framed = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if chunked:
        framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with server.connect() as wire:
        answer = wire.ask(save(framed, b"?first=1"))
        assert site.file.read_bytes() == body[int(answer.body) :]
        assert 0 < int(answer.body) < len(body)
        assert wire.ask(get("/hello")).body == b"hello"


def test_body_that_cannot_be_saved_is_answered_and_the_connection_closed(server: Running) -> None:
    with server.connect() as wire:
        answer = wire.ask(save(b"Content-Length: 10000000\r\n\r\n" + bytes(1000), b"?to=/dev/full"))
        assert (answer.status, answer.headers["connection"]) == (507, "close")
        assert wire.rest() == b""


@pytest.mark.parametrize("linger", [b"\0\0\0\0\0\0\0\0", b"\1\0\0\0\0\0\0\0"], ids=["closes", "resets"])
def test_client_that_vanishes_while_its_body_is_saved_ends_that_quietly(
    server: Running, site: Site, linger: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    site.file.write_bytes(b"")
    with server.connect() as wire:
        wire.send(save(b"Content-Length: 10000000\r\n\r\n" + bytes(1_000_000)))
        assert site.happened() == "saving"
        assert eventually(lambda: site.file.stat().st_size == 1_000_000)
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert site.happened() == "saved"
    assert eventually(lambda: not is_open(site.file))
    server.settle()
    assert not caplog.records


@pytest.mark.parametrize(("offset", "length"), [(0, 3 << 20), (5, 100), (1 << 20, 1 << 20), (7, 0)])
def test_part_of_a_file_is_sent_and_its_descriptor_closed(
    server: Running, site: Site, offset: int, length: int
) -> None:
    expected = site.file.read_bytes()[offset : offset + length]
    path = f"/download?offset={offset}&length={length}"
    with server.connect() as wire, Http2(server.port) as http2:
        for answer in (wire.ask(get(path)), wire.ask(get(path)), http2.ask("GET", path)):
            assert answer.headers["content-length"] == str(length)
            assert answer.body == expected
            assert eventually(lambda: not is_open(site.file))
        head = wire.ask(get(path).replace(b"GET", b"HEAD"), head=True)
        assert head.headers["content-length"] == str(length)
        assert eventually(lambda: not is_open(site.file))


def test_file_is_closed_when_the_client_goes_away_before_its_end(server: Running, site: Site) -> None:
    os.truncate(site.file, 1 << 30)
    for client in (server.connect(receive_buffer=65536), Http2(server.port, window=65535)):
        with client:
            client.request("/download?length=1073741824")
            assert eventually(lambda: is_open(site.file))
        assert eventually(lambda: not is_open(site.file))


def test_file_that_is_shorter_than_promised_cuts_the_answer(server: Running, site: Site) -> None:
    with server.connect() as wire:
        wire.send(get("/download?offset=0&length=4000000"))
        with pytest.raises((EOFError, ConnectionResetError)):
            wire.answer()
    with Http2(server.port) as http2:
        assert http2.ask("GET", "/download?offset=0&length=4000000").was_reset


def test_thousand_idle_connections_are_held_and_hinder_nobody(site: Site) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with serving(site, loop="uvloop") as server:
        wires = [server.connect() for _ in range(1000)]
        try:
            for wire in wires[::100]:
                assert wire.ask(get("/hello")).status == 200
            for wire in wires:
                wire.send(get("/hello"))
            assert all(wire.answer().body == b"hello" for wire in wires)
        finally:
            for wire in wires:
                wire.sock.close()


def test_connection_above_the_limit_is_turned_away_until_another_closes(site: Site) -> None:
    with serving(site, limits=Limits(connections=2)) as server:
        with server.connect() as one, server.connect() as two:
            assert one.ask(get("/hello")).status == two.ask(get("/hello")).status == 200
            with server.connect() as three:
                assert three.answer().status == 503
                assert three.closed()
        with server.connect() as wire:
            assert eventually(lambda: len(server.server._links) == 1)
            assert wire.ask(get("/hello")).status == 200


def test_closing_lets_running_requests_finish_and_takes_no_more(server: Running, site: Site) -> None:
    with server.connect() as busy, server.connect() as idle, Http2(server.port) as http2:
        assert idle.ask(get("/hello")).status == 200
        busy.send(get("/wait"))
        stream = http2.send("GET", "/wait")
        assert [site.happened(), site.happened()] == ["waiting", "waiting"]
        closing = asyncio.run_coroutine_threadsafe(server.server.close(grace=WAIT), server.loop)
        assert idle.closed()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        server.loop.call_soon_threadsafe(site.go_on.set)
        answer = busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"done", "close")
        assert http2.answer(stream).body == b"done"
        closing.result(WAIT)


def test_closing_lets_a_running_stream_finish_and_then_ends_its_connection(
    server: Running, site: Site
) -> None:
    with server.connect() as wire:
        wire.send(get("/stream"))
        assert site.happened() == "ticked"
        closing = asyncio.run_coroutine_threadsafe(server.server.close(grace=WAIT), server.loop)
        server.loop.call_soon_threadsafe(site.go_on.set)
        assert wire.answer().body == b"ticktock"
        closing.result(WAIT / 2)


def test_closing_cancels_what_does_not_finish_in_time(server: Running, site: Site) -> None:
    with server.connect() as wire, Http2(server.port) as http2:
        wire.send(get("/wait"))
        http2.send("GET", "/wait")
        assert [site.happened(), site.happened()] == ["waiting", "waiting"]
        server.call(server.server.close(grace=0.05))
        assert [site.happened(), site.happened()] == ["cancelled", "cancelled"]


def test_small_packets_are_not_held_back(site: Site) -> None:
    async def main() -> int:
        server = await listen(site)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while not server._links:
            await asyncio.sleep(0.01)
        (link,) = server._links
        nodelay = link._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        await server.close()
        return nodelay

    assert asyncio.run(main())


def test_server_listens_on_given_sockets(site: Site) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]

    async def main() -> int:
        server = await listen(site, sockets=[sock])
        await server.close()
        return server.port

    assert asyncio.run(main()) == port


def test_receive_queue_of_a_lingering_connection_is_emptied(site: Site) -> None:
    """The answer to an upload that is refused early must survive the bytes that are still on their way."""
    with serving(site) as server, server.connect() as wire:
        wire.send(b"POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n")
        poll = select.poll()
        poll.register(wire.sock, select.POLLIN)
        assert poll.poll(WAIT * 1000)
        wire.send(bytes(5_000_000))
        assert wire.answer().body == b"hello"


def test_usual_clients_are_served_over_one_connection_each(server: Running, site: Site) -> None:
    standard = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    with urllib3.PoolManager(maxsize=1, block=True, timeout=WAIT, retries=False) as pool:
        for _ in range(20):
            standard.request("POST", "/count", body=iter([b"ab", b"c"]), encode_chunked=True)
            assert standard.getresponse().read() == b"3"
            url = f"http://127.0.0.1:{server.port}"
            assert pool.request("POST", f"{url}/count", body=iter([b"ab", b"c"])).data == b"3"
            assert (
                pool.request("GET", f"{url}/download", fields={"length": "100"}).data
                == site.file.read_bytes()[:100]
            )
        assert pool.connection_from_url(url).num_connections == 1
    assert len(server.server._links) <= 2
    standard.close()
