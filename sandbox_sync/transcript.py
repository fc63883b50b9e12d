"""What is known of one command: its output in order of arrival, and how it ended.

One thread writes it by following the command's stream; any number of threads read it meanwhile.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from sandbox_sync.background import Progress
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import ConnectionException, IncompleteCallException, SandboxException
from sandbox_sync.retained import Channel, Retained

if TYPE_CHECKING:
    from sandbox_sync_rpc import process_pb2

    from sandbox_sync.transport.streams import RpcStream

Piece: TypeAlias = "tuple[str | None, str | None, bytes | None]"
"""A piece of output as (stdout, stderr, pty); exactly one of them is set."""

_CHANNELS_OF_TEXT: tuple[Channel, ...] = ("stdout", "stderr")

PATIENCE_SECONDS = 30.0
"""How long the command is held up by an iteration that lags behind by the whole limit and stands still."""


class Decoder:
    """Turns output into text. A character that arrives in two chunks stays whole; bad bytes become U+FFFD."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {channel: decoder("replace") for channel in _CHANNELS_OF_TEXT}
        self._begun: set[Channel] = set()  # those that have ended within a character

    def feed(self, channel: Channel, data: bytes, *, final: bool = False) -> Piece | None:
        """The piece of output that these bytes complete, if any."""
        if channel == "pty":
            return None, None, data
        if channel in self._begun or final:
            text = self._text(channel, data, final)
        else:
            try:
                text = data.decode()  # whole characters, as nearly always: far quicker than what keeps a rest
            except UnicodeDecodeError:
                text = self._text(channel, data, final)
        if not text:
            return None
        return (text, None, None) if channel == "stdout" else (None, text, None)

    def finish(self) -> Iterator[Piece]:
        """What is left of characters that never became whole."""
        for channel in _CHANNELS_OF_TEXT:
            if piece := self.feed(channel, b"", final=True):
                yield piece

    def _text(self, channel: Channel, data: bytes, final: bool) -> str:
        decoder = self._decoders[channel]
        text = decoder.decode(data, final)
        if decoder.getstate()[0]:
            self._begun.add(channel)
        else:
            self._begun.discard(channel)
        return text


class _Iteration:
    """One reader of the output: the number of the chunk that it takes next."""

    def __init__(self, position: int) -> None:
        self.position = position


class Transcript(Progress):
    """The output of a command and its end.

    Args:
        limit: Bytes of memory that the output may take; the oldest is dropped beyond it. None for no bound.
        pid: The command's process id, where it is known before its stream tells.
        to_iterate: Whether somebody is going to iterate, and wants the output from its beginning.

    Attributes:
        pid: The command's process id, once it is known.
        end: How the command ended, once it did.
    """

    def __init__(self, limit: int | None, pid: int | None = None, *, to_iterate: bool = False) -> None:
        super().__init__()
        self.pid = pid
        self.end: process_pb2.ProcessEvent.EndEvent | None = None
        self._limit = limit
        self._kept = Retained()
        self._reserved = _Iteration(0) if to_iterate else None
        self._iterations = {self._reserved} if self._reserved else set()

    @property
    def settled(self) -> bool:
        """Whether nothing more will come."""
        return self.end is not None or super().settled

    @property
    def truncated(self) -> bool:
        """Whether output was dropped to keep within the limit."""
        return self._kept.dropped > 0

    # Writing

    def begin(self, event: process_pb2.ProcessEvent) -> None:
        """Note the process id, if an event tells it."""
        if event.HasField("start"):
            with self._changed.lock:
                self.pid = event.start.pid
                self._changed.notify_all()

    def follow(self, stream: RpcStream[Any], deliver: Callable[[Piece], None] | None) -> None:
        """Record the events of a stream to its end, handing each piece of output to `deliver` as it arrives.

        Raises:
            IncompleteCallException: The stream broke, or it ended before the command did.
        """
        decoder = Decoder()
        try:
            for message in stream:
                event = message.event
                if event.HasField("data"):
                    output = event.data
                    if channel := output.WhichOneof("output"):
                        data = getattr(output, channel)
                        self._append(channel, data)
                        if deliver is not None and (piece := decoder.feed(channel, data)):
                            deliver(piece)
                    continue
                kind = event.WhichOneof("event")
                if kind == "start":
                    self.begin(event)
                elif kind == "end":
                    if deliver is not None:
                        for piece in decoder.finish():
                            deliver(piece)
                    with self._changed.lock:
                        self.end = event.end
                        self._changed.notify_all()
        except IncompleteCallException:
            if self.end is None:
                raise
        if self.end is None:
            words = f"the stream of command {self.pid} ended, and the command had not"
            raise ConnectionException(words) if stream.cancelled else stream.cut_short(words)

    def explain(self, error: BaseException) -> BaseException:
        """Tell an error what is known of the command."""
        if isinstance(error, IncompleteCallException):
            error.pid = self.pid
            error.stdout = self.text("stdout")
            error.stderr = self.text("stderr")
        return error

    def _append(self, channel: Channel, data: bytes) -> None:
        with self._changed.lock:
            self._kept.append(channel, data)
            self._changed.notify_all()
        if self._limit is not None and self._kept.size > self._limit:
            self._drop_oldest(down_to=self._limit * 3 // 4)  # many at once: shifting a long list costs

    def _drop_oldest(self, down_to: int) -> None:
        """Make room, when all iterations have come up to what then is the oldest, as long as they get on."""
        count = self._kept.beginning(self._kept.size - down_to)
        position = self._kept.dropped + count
        while True:
            with self._changed.lock:
                late = next((each for each in self._iterations if self._is_awaited(each, position)), None)
                if late is None:
                    self._kept.drop(count)
                    return
                got_on = partial(self._got_on, late, late.position)
            if not self._changed.wait_for(got_on, Deadline.after(PATIENCE_SECONDS)):
                with self._changed.lock:
                    self._iterations.discard(late)

    def _is_awaited(self, iteration: _Iteration, position: int) -> bool:
        return iteration in self._iterations and iteration.position < position and not self.settled

    def _got_on(self, iteration: _Iteration, position: int) -> bool:
        return not self._is_awaited(iteration, position + 1)

    # Reading

    def data(self, channel: Channel) -> bytes:
        """What is kept of a channel's output so far."""
        with self._lock():
            return self._kept.data(channel)

    def text(self, channel: Channel) -> str:
        """The same as text; a last character that is not whole yet is left out while more may come."""
        settled = self.settled
        return codecs.getincrementaldecoder("utf-8")("replace").decode(self.data(channel), settled)

    def pieces(self, deadline: Deadline) -> Iterator[Piece]:
        """The output from the oldest kept, as it arrives, until the command is settled or the time is up.

        Raises:
            SandboxException: The iteration stood still for so long that output was dropped before it was
            taken.
        """
        decoder = Decoder()
        with self._lock():
            iteration = self._reserved or _Iteration(self._kept.dropped)
            self._reserved = None
            self._iterations.add(iteration)
        try:
            while self._wait(lambda: self._is_beyond(iteration.position), deadline):
                with self._lock():
                    missed = self._kept.dropped - iteration.position
                    chunks = self._kept.after(max(iteration.position, self._kept.dropped))
                    settled = self.settled and iteration.position + len(chunks) == self._kept.end
                if missed > 0:
                    raise SandboxException(
                        f"Command {self.pid} wrote on while nobody iterated: {missed} chunks were dropped"
                    )
                for channel, data in chunks:
                    if piece := decoder.feed(channel, data):
                        yield piece
                    with self._lock():
                        iteration.position += 1
                        self._changed.notify_all()
                if settled:
                    yield from decoder.finish()
                    return
        finally:
            if not self.is_inherited:  # as it may be when a copy in a forked child is collected
                with self._changed.lock:
                    self._iterations.discard(iteration)
                    self._changed.notify_all()

    def _is_beyond(self, position: int) -> bool:
        return self.settled or position < self._kept.end

    def wait_for_pid(self, deadline: Deadline) -> int | None:
        """The command's process id; None if it is not known when the time is up or the command is settled."""
        self._wait(lambda: self.pid is not None or self.settled, deadline)
        return self.pid

    def wait_for_end(self, deadline: Deadline) -> None:
        """Wait until the command is settled or the time is up, and leave all else to who waits properly."""
        self._wait(lambda: self.settled, deadline)

    def wait(self, deadline: Deadline) -> bool:
        """Wait until the command is settled; False if the time was up first.

        Raises:
            BaseException: What `interrupt` was given, once.
        """
        with self._lock():
            if self._reserved is not None:  # it is the end that is wanted, and not an iteration
                self._iterations.discard(self._reserved)
                self._reserved = None
                self._changed.notify_all()
        return super().wait(deadline)

    @property
    def _remedy(self) -> str:
        return f"commands.connect({self.pid}) makes one that works here"
