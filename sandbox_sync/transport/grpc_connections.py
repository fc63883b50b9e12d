"""Connections of gRPC: as few to each server as carry the streams, kept away from forked children.

Measured: a child that uses its parent's connection fails half of the time, and one that was forked while a
stream ran crashes or hangs whatever it does with gRPC. So a child gets connections of its own, or
`grpc_usable` is told that it gets none; and it never lets go of what it inherited, for that is use, too.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc

from sandbox_sync.transport import forks, grpc_usable
from sandbox_sync.transport.answers import MAX_MESSAGE
from sandbox_sync.transport.green import gevent_patched
from sandbox_sync.transport.pools import USER_AGENT
from sandbox_sync.transport.tls import ClientCert, client_files, pem, ssl_context

_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Reads in the calling thread: measured, it is six times as fast.
    ("SingleThreadedUnaryStream", 1),
    # Connections are otherwise shared in the process, and a forked child would use its parent's.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.primary_user_agent", USER_AGENT),
)

# Calls wait without a word when a connection carries all that its server allows, and servers are advised to
# allow no fewer than 100. The rest is for calls that are soon over.
_MOST_STREAMS = 90


@dataclass(frozen=True)
class Settings:
    """What makes one connection different from others. With TLS, `trusted` is the file of the authorities."""

    host: str
    port: int
    trusted: str | None
    proxy: str | None = field(repr=False)
    client_cert: ClientCert

    def channel(self) -> grpc.Channel:
        """A new channel; it connects when it is first used.

        Raises:
            InvalidArgumentException: A certificate file is none.
        """
        target, options = self._target()
        if self.trusted is None:
            return grpc.insecure_channel(target, options=options)
        # gRPC looks into the files when it connects, and says little then.
        ssl_context(self.trusted, self.client_cert)
        key = certificate = None
        files = client_files(self.client_cert)
        if files is not None:
            certificate, key = map(pem, files)
        credentials = grpc.ssl_channel_credentials(pem(self.trusted), key, certificate)
        return grpc.secure_channel(target, credentials, options=options)

    def _target(self) -> tuple[str, list[tuple[str, Any]]]:
        bracketed = f"[{self.host}]" if ":" in self.host else self.host
        options = [*_OPTIONS, ("grpc.default_authority", f"{bracketed}:{self.port}")]
        options.append(("grpc.enable_http_proxy", 0 if self.proxy is None else 1))
        if self.proxy is not None:
            options.append(("grpc.http_proxy", self.proxy))
        # Names under .localhost are this machine, whatever the resolver says.
        name = "localhost" if self.host.endswith(".localhost") else bracketed
        return f"dns:///{name}:{self.port}", options


class Connection:
    """A channel that all sandboxes behind one server share, and the process that may use it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.owner = os.getpid()
        self.channel = channel
        self._streams: set[object] = set()
        # Also when the program ends, while gevent can still help with it.
        weakref.finalize(self, _close, channel, self.owner)

    @property
    def is_usable(self) -> bool:
        """Whether it belongs to this process and has room for another stream."""
        return self.owner == os.getpid() and len(self._streams) < _MOST_STREAMS

    def carry(self) -> Callable[[], None]:
        """Note that a stream runs on it from now on; see `begun`. The result holds the connection."""
        mark = object()
        self._streams.add(mark)
        done = begun()

        def ended() -> None:
            self._streams.discard(mark)
            done()

        return ended


def _close(channel: grpc.Channel, owner: int) -> None:
    if owner == os.getpid():
        with in_flight():
            channel.close()


# Further ones to the same server have higher numbers.
_connections: weakref.WeakValueDictionary[tuple[Settings, int], Connection] = weakref.WeakValueDictionary()
_calls: weakref.WeakSet[object] = weakref.WeakSet()
# What the parents of this process had of gRPC, which hangs or crashes when it is taken down here.
_inherited: list[object] = []
# Marks of what gRPC is doing. A set changes in one step, so it needs no lock, which another thread could hold
# when the process is forked.
active: set[object] = set()


def connect(settings: Settings) -> Connection:
    """This process's first connection with these settings that has room for another stream.

    Raises:
        ForkedWithActiveStreamException: gRPC is not safe to use in this process.
    """
    obstacle = grpc_usable.obstacle()
    if obstacle is not None:
        raise obstacle.error(f"gRPC cannot be used in this process: {obstacle.why}; {obstacle.remedy}")
    number = 0
    while True:
        connection = _connections.get((settings, number))
        if connection is None:
            _cooperate_with_gevent()
            connection = _connections.setdefault((settings, number), Connection(settings.channel()))
        if connection.is_usable:
            return connection
        number += 1


def _after_fork() -> None:
    support = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").lower()
    if active:
        grpc_usable.forked_badly("this process was forked while its parent had a call over gRPC in progress")
    elif (_connections or _inherited) and support in ("0", "false", "no"):
        grpc_usable.forked_badly(
            "this process's parent used gRPC before the fork, with GRPC_ENABLE_FORK_SUPPORT turned off"
        )
    active.clear()
    _inherited.extend(_connections.values())
    _inherited.extend(_calls)
    _connections.clear()
    _calls.clear()


forks.in_child(_after_fork)


def keep_from_children(call: object) -> None:
    """Have children that are forked while this is there keep it for ever: ending it would be gRPC's work."""
    _calls.add(call)


def begun() -> Callable[[], None]:
    """Note that gRPC has something to do from now on; the result, called at least once, that it is done."""
    forks.check()  # before it counts as something that was under way at a fork
    mark = object()
    active.add(mark)
    return partial(active.discard, mark)


@contextmanager
def in_flight() -> Iterator[None]:
    """A block in which gRPC has something to do."""
    done = begun()
    try:
        yield
    finally:
        done()


def _cooperate_with_gevent() -> None:
    """Let calls yield to other greenlets in a program that gevent has patched; they would block them all."""
    if gevent_patched():
        from grpc.experimental import gevent  # type: ignore[attr-defined]  # not in the stubs

        gevent.init_gevent()
