"""A box made of kernel namespaces, on the server's side: its agent's socket, its first process's pidfd."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import socket
import stat
import struct
import termios
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sandbox_local.isolation import syscalls, wire
from sandbox_local.isolation.base import Command, Exit, Usage
from sandbox_local.isolation.channel import PATIENCE, Answer, Channel
from sandbox_local.isolation.errors import BoxGone, IsolationError, NoAnswer
from sandbox_local.isolation.files.operations import LONG
from sandbox_local.isolation.undo import finish_or_undo

_START = 30.0
"""Seconds within which a box must be ready; a few milliseconds on a machine that is not overloaded."""

_CONNECT = 5.0
"""Seconds within which a port of a box must have been reached or not."""

_LONG = 300.0
"""Seconds within which a file operation that may take long must be done."""

_END = 10.0
"""Seconds within which the kernel must have ended a box that was killed."""


_LAST_WORDS = 1.0
"""Seconds by which the end of a box may be told later than the end of its file operations."""


class _WorkerKilled(OSError):
    """The process that does the file operations has died."""


class NamespaceProcess:
    """A `base.Process`."""

    def __init__(self, agent: Channel, number: int) -> None:
        self._agent = agent
        self._number = number
        self.pid = 0
        self.stdin: int | None = None
        self.stdout: int | None = None
        self.stderr: int | None = None
        self.pty: int | None = None
        self.exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    async def signal(self, signum: int) -> bool:
        """See `base.Process`."""
        answer, _ = await self._agent.call("signal", {"command": self._number, "signum": signum})
        return answer.get("sent") is True

    def resize(self, columns: int, rows: int) -> None:
        """See `base.Process`."""
        if self.pty is None:
            raise ValueError("the process has no terminal")
        if os.isatty(self.pty):
            fcntl.ioctl(self.pty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        else:
            arguments = {"command": self._number, "columns": columns, "rows": rows}
            self._agent.tell({"id": self._agent.number(), "op": "resize", "args": arguments})

    async def kill_tree(self) -> None:
        """See `base.Process`."""
        await self._agent.call("kill_tree", {"command": self._number})

    def started(self, command: Command, pid: object, fds: Sequence[int]) -> None:
        """Note what the agent answered to the start.

        Raises:
            ValueError: It is nonsense.
        """
        if not isinstance(pid, int) or not 0 < pid < 1 << 22:
            raise ValueError("no process id")
        if not all(_is_stream(fd, terminal=command.pty is not None) for fd in fds):
            raise ValueError("no pipes")
        self.pid = pid
        for fd in fds:
            os.set_blocking(fd, False)
        if command.pty:
            (self.pty,) = fds
        elif command.stdin:
            self.stdout, self.stderr, self.stdin = fds
        else:
            self.stdout, self.stderr = fds

    def ended(self, event: wire.Message) -> None:
        """Note that it has ended.

        Raises:
            TypeError: The event is nonsense.
        """
        code, signum = event["code"], event["signal"]
        if (code is None) == (signum is None) or not isinstance(signum if code is None else code, int):
            raise TypeError("neither a code nor a signal")
        if not self.exit.done():
            self.exit.set_result(Exit(code, signum, bool(event["core"])))

    def box_gone(self, error: BoxGone) -> None:
        """Note that its box has ended."""
        if not self.exit.done():
            self.exit.set_exception(error)
            self.exit.exception()  # nobody has to ask for it

    async def discard(self) -> None:
        """Do away with it, because nobody wants it any more."""
        _close_all([fd for fd in (self.stdin, self.stdout, self.stderr, self.pty) if fd is not None])
        await self.kill_tree()


class NamespaceBox:
    """A `base.Box`."""

    def __init__(
        self,
        box_id: str,
        sock: socket.socket,
        pidfd: int,
        reap: Callable[[], Awaitable[None]],
        usage: Callable[[], Usage],
    ) -> None:
        """Take charge of a box that has been forked.

        Args:
            box_id: As in its spec.
            sock: To its agent.
            pidfd: Stands for its first process.
            reap: Has what remains of it removed when it has ended.
            usage: Tells what it uses.
        """
        loop = asyncio.get_running_loop()
        self.box_id = box_id
        self.ended: asyncio.Future[str] = loop.create_future()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._buried: asyncio.Future[None] | None = None
        self._reason = "its first process died"
        self._pidfd = pidfd
        self._reap = reap
        self.usage = usage
        self._processes: dict[int, NamespaceProcess] = {}
        self._worker: asyncio.Future[Channel] | None = None
        self._frozen = False
        self._agent = Channel(
            sock, on_event=self._take_event, on_end=self._kill, gone=self._gone, patient=lambda: self._frozen
        )
        loop.add_reader(pidfd, self._died)

    async def ready(self) -> None:
        """Wait until it can be used.

        Raises:
            IsolationError: It could not be made; it is gone then.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), _START)
        except asyncio.TimeoutError:
            await self.close()
            raise IsolationError(f"sandbox {self.box_id} was not ready within {_START:.0f} s") from None
        except BaseException:
            await self.close()
            raise

    async def spawn(self, command: Command) -> NamespaceProcess:
        """See `base.Box`."""
        _check(command)
        return await finish_or_undo(self._spawn(command), NamespaceProcess.discard)

    async def files(self, operation: str, **arguments: Any) -> Answer:
        """See `base.Box`."""
        if self._worker is None:
            self._worker = asyncio.ensure_future(self._start_worker())
            # Whoever asked for it may have gone, and nobody else has to hear of a failure.
            self._worker.add_done_callback(lambda started: started.cancelled() or started.exception())
        worker = await asyncio.shield(self._worker)
        try:
            return await worker.call(operation, arguments, seconds=_LONG if operation in LONG else PATIENCE)
        except NoAnswer:
            if operation not in LONG:  # it has been stopped from inside: let there be another
                worker.close()
                self._worker_died()
            raise
        except _WorkerKilled:
            await asyncio.wait({self.ended}, timeout=_LAST_WORDS)  # it may have been all of the box
            if self.ended.done():
                raise self._gone() from None
            raise

    async def connect(self, port: int) -> socket.socket:
        """See `base.Box`."""
        try:
            return await self._connect("127.0.0.1", port)
        except ConnectionRefusedError as refusal:
            try:
                return await self._connect("::1", port)
            except OSError:  # refused there too, or the kernel has no IPv6
                raise refusal from None

    async def _connect(self, host: str, port: int) -> socket.socket:
        _, fds = await self._agent.call("connect", {"host": host, "port": port})
        sock = self._socket(fds)
        loop = asyncio.get_running_loop()
        connected = asyncio.Event()
        loop.add_writer(sock.fileno(), connected.set)
        try:
            await asyncio.wait_for(connected.wait(), _CONNECT)
            if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(number, f"port {port} of sandbox {self.box_id}: {os.strerror(number)}")
        except asyncio.TimeoutError:
            loop.remove_writer(sock.fileno())
            sock.close()
            raise NoAnswer(_CONNECT) from None
        except BaseException:
            loop.remove_writer(sock.fileno())
            sock.close()
            raise
        loop.remove_writer(sock.fileno())
        return sock

    async def egress(self) -> tuple[socket.socket, socket.socket]:
        """See `base.Box`."""
        try:
            _, fds = await self._agent.call("egress", {})
        except OSError as error:
            raise IsolationError(
                f"sandbox {self.box_id} can't be given a network: {error.strerror or error}. It needs Linux "
                "with nf_tables, its NAT and connection tracking (CONFIG_NF_TABLES_IPV4, CONFIG_NFT_NAT, "
                "CONFIG_NF_CONNTRACK); as root, `modprobe -a nf_tables nft_chain_nat nft_nat nf_conntrack` "
                "loads them where they are modules. Or start the server without a network for its sandboxes"
            ) from error
        listener = self._socket(fds[:1])
        try:
            questions = self._socket(fds[1:])
        except BaseException:
            listener.close()
            raise
        for sock in (listener, questions):
            sock.setblocking(False)
        return listener, questions

    async def freeze(self) -> None:
        """See `base.Box`."""
        await self._agent.call("freeze", {"frozen": True})
        self._frozen = True

    async def thaw(self) -> None:
        """See `base.Box`."""
        await self._agent.call("freeze", {"frozen": False})
        self._frozen = False

    async def close(self) -> None:
        """See `base.Box`."""
        if not self.ended.done():
            self._reason = "it was closed"
            self._kill()
        try:
            await asyncio.wait_for(self._end(), _END)
        except asyncio.TimeoutError:
            message = f"the kernel has not ended sandbox {self.box_id} within {_END:.0f} s"
            raise TimeoutError(message) from None

    async def _end(self) -> None:
        await asyncio.shield(self.ended)
        if self._buried:
            await asyncio.shield(self._buried)

    async def _spawn(self, command: Command) -> NamespaceProcess:
        number = self._agent.number()
        process = self._processes[number] = NamespaceProcess(self._agent, number)
        arguments = {
            "argv": list(command.argv),
            "user": command.user,
            "envs": dict(command.envs),
            "cwd": command.cwd,
            "stdin": command.stdin,
            "pty": command.pty,
        }
        try:
            answer, fds = await self._agent.call("spawn", arguments, number=number)
            try:
                process.started(command, answer["pid"], fds)
            except (LookupError, TypeError, ValueError):
                _close_all(fds)
                raise self._nonsense() from None
        except (NoAnswer, wire.DescriptorsLost):
            # It runs, or may yet be started.
            del self._processes[number]
            self._agent.tell({"id": self._agent.number(), "op": "kill_tree", "args": {"command": number}})
            raise
        except BaseException:
            self._processes.pop(number, None)
            raise
        return process

    async def _start_worker(self) -> Channel:
        try:
            _, fds = await self._agent.call("files", {})
            sock = self._socket(fds)
        except BaseException:
            self._worker = None
            raise
        return Channel(
            sock,
            on_event=lambda _: None,
            on_end=self._worker_died,
            gone=self._worker_gone,
            patient=lambda: self._frozen,
        )

    def _worker_died(self) -> None:
        self._worker = None

    def _worker_gone(self) -> Exception:
        if self.ended.done():
            return self._gone()
        message = f"the file operations of sandbox {self.box_id} were killed from inside it"
        return _WorkerKilled(errno.EIO, message)

    def _socket(self, fds: list[int]) -> socket.socket:
        try:
            (fd,) = fds
            return socket.socket(fileno=fd)
        except (OSError, ValueError) as error:
            _close_all(fds)
            raise self._nonsense() from error

    def _nonsense(self) -> OSError:
        """The error for an answer that no agent of ours gives; nothing in the box can be believed now."""
        self._reason = "its first process answered nonsense"
        self._kill()
        return OSError(errno.EIO, f"the agent of sandbox {self.box_id} answered nonsense")

    def _take_event(self, event: wire.Message) -> None:
        if event["event"] == "exit":
            process = self._processes.pop(event["command"], None)
            if process:
                process.ended(event)
        elif event["event"] == "ready":
            self._ready.set_result(None)
        elif self._ready.done():
            self._reason = f"its first process failed: {event['message']}"
        else:
            message = f"sandbox {self.box_id} could not be made: {event['message']}"
            self._ready.set_exception(IsolationError(message))

    def _gone(self) -> BoxGone:
        return BoxGone(f"sandbox {self.box_id} has ended: {self._reason}")

    def _kill(self) -> None:
        if not self.ended.done():
            try:
                syscalls.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has died on its own; the event loop will say so

    def _died(self) -> None:
        """All processes of the box are dead: the kernel sees to that before its first one counts as dead."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.ended.set_result(self._reason)
        self._agent.close()
        if self._worker and self._worker.done() and not self._worker.exception():
            self._worker.result().close()
        if not self._ready.done():
            self._ready.set_exception(IsolationError(f"sandbox {self.box_id} died while it was being made"))
            self._ready.exception()
        for process in self._processes.values():
            process.box_gone(self._gone())
        self._processes.clear()
        self._buried = asyncio.ensure_future(self._reap())


def _check(command: Command) -> None:
    """Refuse what no process can be started with, before anything is."""
    if not command.argv:
        raise ValueError("no program to start")
    for text in (*command.argv, *command.envs, *command.envs.values(), command.cwd, command.user):
        if b"\0" in os.fsencode(text):
            raise ValueError("arguments, variables and paths can't contain a NUL character")
    for name in command.envs:
        if not name or "=" in name:
            raise ValueError(f"a variable can't be named {name!r}")


def _is_stream(fd: int, *, terminal: bool) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or (terminal and stat.S_ISSOCK(mode))


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
