"""The gateway of one sandbox: where it wants to go, whether it may, and the connections that it has."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
from ipaddress import IPv4Address

from sandbox_local.egress import sniff
from sandbox_local.egress.names import Names
from sandbox_local.egress.policy import Policy
from sandbox_local.egress.relay import End
from sandbox_local.egress.resolver import Resolver
from sandbox_local.isolation.base import Backend, Box, BoxSpec

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 512
_MOST_QUESTIONS = 64
_CONNECT_SECONDS = 20.0
_QUESTION_SECONDS = 20.0
"""What a question over TCP has for its answer, and the next one for coming."""

_DNS_PORT = 53
_SNIFFERS = {80: sniff.http_host, 443: sniff.tls_name}
_SO_ORIGINAL_DST = 80


class Refused(Exception):
    """The sandbox may not go there."""


class Work:
    """The connections and questions of all sandboxes, which share the descriptors of this process."""

    def __init__(self) -> None:
        # A connection takes two; half of all is left for the rest of the server.
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether no more is to be taken up."""
        return len(self._tasks) >= self._most

    def add(self, task: asyncio.Task[None]) -> None:
        """Take something up until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Egress:
    """Gives sandboxes a way out.

    Args:
        own_port: Where this server listens; no sandbox gets there by itself, whatever its rules.
        resolver: Knows names.
    """

    def __init__(self, own_port: int, resolver: Resolver | None = None) -> None:
        self._own_port = own_port
        self._resolver = resolver or Resolver()
        self._work = Work()

    async def prove(self, backend: Backend) -> None:
        """Find out whether boxes can have a way out, by one that has.

        Raises:
            IsolationError: They can't; the message names the cause and the remedy.
        """
        box = await backend.create(BoxSpec("probe"))
        try:
            gateway = await self.open(box, Policy(internet=False))
            await gateway.close()
        finally:
            await box.close()

    async def open(self, box: Box, policy: Policy) -> Gateway:
        """Open the way out of a box, in which nothing runs yet.

        Raises:
            IsolationError: This machine can't do that.
            BoxGone: The box has ended.
        """
        listener, questions = await box.egress()
        gateway = Gateway(policy, self._resolver, self._own_port, self._work)
        try:
            await gateway.start(listener, questions)
        except BaseException:
            listener.close()
            questions.close()
            await gateway.close()
            raise
        return gateway


class Gateway:
    """What goes out of one sandbox.

    Args:
        policy: Its rules.
        resolver: Knows names.
        own_port: Where this server listens.
        work: What all sandboxes have under way.
    """

    def __init__(self, policy: Policy, resolver: Resolver, own_port: int, work: Work) -> None:
        self._names = Names(resolver, policy)
        self._own_port = own_port
        self._work = work
        self._connections: set[_Connection] = set()
        self._questions: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None
        self._datagrams: asyncio.DatagramTransport | None = None

    @property
    def policy(self) -> Policy:
        """The rules that are in force."""
        return self._names.policy

    async def start(self, listener: socket.socket, questions: socket.socket) -> None:
        """Serve the sockets of `Box.egress`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Inner(self), sock=listener, backlog=1024)
        self._datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=questions)

    def apply(self, policy: Policy) -> None:
        """Put other rules in force, and cut the connections that they refuse."""
        self._names.policy = policy
        for connection in self._connections:
            if not connection.permitted():
                connection.task.cancel()

    async def close(self) -> None:
        """End every connection."""
        if self._server is not None:
            self._server.close()
        if self._datagrams is not None:
            self._datagrams.abort()
        tasks = [*self._questions, *(connection.task for connection in self._connections)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def accepted(self, inner: End) -> None:
        """Take up a connection of the sandbox's."""
        if len(self._connections) >= MOST_CONNECTIONS or self._work.full:
            inner.reset()
            return
        connection = _Connection(inner, self._names, self._own_port)
        self._work.add(connection.task)
        self._connections.add(connection)
        connection.task.add_done_callback(lambda _: self._connections.discard(connection))

    def asked(self, data: bytes, sender: tuple[str, int]) -> None:
        """Take up a datagram with a question; what is too much is lost, as datagrams are."""
        if len(self._questions) < _MOST_QUESTIONS and not self._work.full:
            task = asyncio.get_running_loop().create_task(self._answer(data, sender))
            self._work.add(task)
            self._questions.add(task)
            task.add_done_callback(self._questions.discard)

    async def _answer(self, data: bytes, sender: tuple[str, int]) -> None:
        answer = await self._names.answer(data, stream=False)
        if answer is not None and self._datagrams is not None:
            self._datagrams.sendto(answer, sender)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._gateway.asked(data, address)


class _Inner(End):
    """The sandbox's end of a connection."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._gateway.accepted(self)


class _Connection:
    """One connection of the sandbox's, from its first packet to its end."""

    def __init__(self, inner: End, names: Names, own_port: int) -> None:
        self._inner = inner
        self._outer: End | None = None
        self._names = names
        self._own_port = own_port
        self._destination: tuple[IPv4Address, int] | None = None
        self._name: str | None = None
        self.task = asyncio.get_running_loop().create_task(self._run())
        self._deadline = self._cut_in(_CONNECT_SECONDS)
        inner.lost.add_done_callback(lambda _: None if self._outer else self.task.cancel())

    def permitted(self) -> bool:
        """Whether the rules that are in force now let it go where it goes; yes if that is still open."""
        return self._destination is None or self._permits(*self._destination)

    async def _run(self) -> None:
        try:
            address, port = _original_destination(self._inner.transport)
            if port == _DNS_PORT:
                await self._answer_questions()
                return
            outer = await self._connect(address, port)
            if not self.permitted():  # not any more
                outer.reset()
                raise Refused("the rules have changed")
            self._outer = outer
            self._deadline.cancel()
            self._inner.join(outer)
            await asyncio.gather(asyncio.shield(self._inner.lost), asyncio.shield(outer.lost))
        except (OSError, EOFError, Refused, sniff.NoName) as error:
            log.debug("a connection out of a sandbox came to nothing: %s", error)
        finally:
            self._deadline.cancel()
            for end in (self._inner, self._outer):
                if end is not None:
                    end.reset()

    def _cut_in(self, seconds: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self.task.cancel)

    async def _connect(self, address: IPv4Address, port: int) -> End:
        failure: Exception = Refused(f"{address} port {port} is not allowed")
        for candidate in await self._candidates(address, port):
            if not self._permits(candidate, port):
                continue
            try:
                _, outer = await asyncio.get_running_loop().create_connection(End, str(candidate), port)
            except OSError as error:
                failure = error
            else:
                outer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                self._destination = candidate, port
                return outer
        raise failure

    async def _candidates(self, address: IPv4Address, port: int) -> list[IPv4Address]:
        """Where a connection to an address may really go."""
        if self._names.policy.by_name and not self._permits(address, port):
            if port in _SNIFFERS:
                # It goes to whom it names, whatever address it was for.
                self._name = await self._sniff(port)
                known = self._names.policy.permits_name(self._name)
                return await self._names.addresses(self._name) if known else []
            self._name = self._names.permitted(address)
        return [address]

    def _permits(self, address: IPv4Address, port: int) -> bool:
        ours = _is_this_machine(address)
        if ours and port == self._own_port:
            return False
        return self._names.policy.permits(address, ours=ours, name=self._name)

    async def _sniff(self, port: int) -> str:
        while True:
            name = _SNIFFERS[port](bytes(self._inner.pending))
            if name is not None:
                return name
            if len(self._inner.pending) > sniff.MOST_BYTES:
                raise sniff.NoName(f"there is none in its first {sniff.MOST_BYTES} bytes")
            await self._inner.more()

    async def _answer_questions(self) -> None:
        """Be the name server at the other end."""
        inner = self._inner
        while not inner.full:
            try:
                while len(inner.pending) < 2 or len(inner.pending) < 2 + _length(inner.pending):
                    await inner.more()
            except EOFError:
                inner.transport.close()
                await asyncio.shield(inner.lost)
                return
            self._deadline.cancel()
            self._deadline = self._cut_in(_QUESTION_SECONDS)
            asked = inner.take(2 + _length(inner.pending))[2:]
            answer = await self._names.answer(asked, stream=True)
            if answer is None:
                return
            inner.transport.write(len(answer).to_bytes(2, "big") + answer)


def _length(frame: bytearray) -> int:
    return int.from_bytes(frame[:2], "big")


def _original_destination(transport: asyncio.Transport) -> tuple[IPv4Address, int]:
    told = transport.get_extra_info("socket").getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
    port, address = struct.unpack_from("!H4s", told, 2)
    return IPv4Address(address), port


def _is_this_machine(address: IPv4Address) -> bool:
    """Whether a packet to an address would not leave this machine; nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((str(address), 9))
        except OSError:
            return False
        return bool(sock.getsockname()[0] == str(address))
