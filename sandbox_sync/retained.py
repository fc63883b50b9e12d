"""Output that is kept, chunk by chunk: each is found again as it came, and small ones take little more memory
than their bytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice, repeat
from typing import Literal, TypeAlias

Channel: TypeAlias = Literal["stdout", "stderr", "pty"]
Chunk: TypeAlias = "tuple[Channel, bytes]"

OVERHEAD = 128
"""Bytes that a chunk counts for beside its data: many small ones must not escape a bound."""

_RUN = 256  # chunks that are packed at once
_WORTH = 512 * _RUN  # bytes of a run from which on what its chunks take beside their data is not much


class Retained:
    """The newest chunks of output. Whoever uses it from several threads holds a lock of their own.

    Attributes:
        dropped: How many older ones are gone, which is the number of the oldest one kept.
        size: Bytes that they count for.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.size = 0
        self._runs: list[_Packed | list[Chunk]] = []  # of the same length, but for the first
        self._channels: list[Channel] = []  # of those that are not packed
        self._data: list[bytes] = []

    @property
    def end(self) -> int:
        """The number of the chunk that comes next."""
        count = self.dropped + len(self._data)
        return count + len(self._runs[0]) + (len(self._runs) - 1) * _RUN if self._runs else count

    def append(self, channel: Channel, data: bytes) -> None:
        """Keep a chunk."""
        self._channels.append(channel)
        self._data.append(data)
        self.size += len(data) + OVERHEAD
        if len(self._data) == 2 * _RUN:  # those that are about to be read stay as they are
            self._pack()

    def beginning(self, size: int) -> int:
        """How many of the oldest chunks count for so many bytes at least."""
        count = 0
        for run in [*self._runs, self._newest()]:
            for _, data in run:
                if size <= 0:
                    return count
                size -= len(data) + OVERHEAD
                count += 1
        return count

    def drop(self, count: int) -> None:
        """Forget so many of the oldest chunks."""
        self.dropped += count
        while self._runs and len(self._runs[0]) <= count:
            run = self._runs.pop(0)
            self._uncount(run)
            count -= len(run)
        if self._runs:
            rest = self._runs[0] = list(self._runs[0])
            self._uncount(rest[:count])
            del rest[:count]
        else:
            self._uncount(self._newest(0, count))
            del self._channels[:count], self._data[:count]

    def after(self, number: int) -> list[Chunk]:
        """Chunks from one that is kept on: some, and none only if there is none."""
        at = number - self.dropped
        if self._runs:
            first = len(self._runs[0])
            if at < first:
                return [*islice(self._runs[0], at, None)]
            index = 1 + (at - first) // _RUN
            at = (at - first) % _RUN
            if index < len(self._runs):
                return [*islice(self._runs[index], at, None)]
            at += (index - len(self._runs)) * _RUN
        return self._newest(at)

    def data(self, channel: Channel) -> bytes:
        """All that is kept of a channel."""
        pieces = []
        for run in [*self._runs, self._newest()]:
            if isinstance(run, _Packed) and run.channel == channel:
                pieces.append(run.joined)
            else:
                pieces.extend([data for name, data in run if name == channel])
        return b"".join(pieces)

    def _newest(self, start: int = 0, stop: int | None = None) -> list[Chunk]:
        return list(zip(self._channels[start:stop], self._data[start:stop], strict=True))

    def _pack(self) -> None:
        lengths = list(map(len, self._data[:_RUN]))
        if sum(lengths) < _WORTH:
            self._runs.append(_Packed(self._channels[:_RUN], self._data[:_RUN], lengths))
        else:
            self._runs.append(self._newest(0, _RUN))
        del self._channels[:_RUN], self._data[:_RUN]

    def _uncount(self, chunks: Iterable[Chunk]) -> None:
        self.size -= sum([len(data) + OVERHEAD for _, data in chunks])


class _Packed:
    """Small chunks in a row.

    Attributes:
        joined: The bytes of all of them.
        channel: What all of them came on; None if they differ.
    """

    def __init__(self, channels: list[Channel], data: list[bytes], lengths: list[int]) -> None:
        self.joined = b"".join(data)
        alike = channels.count(channels[0]) == len(channels)
        self.channel = channels[0] if alike else None
        self._channels: Iterable[Channel] = repeat(channels[0]) if alike else channels
        self._ends = array("I", accumulate(lengths))

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[Chunk]:
        start = 0
        for channel, end in zip(self._channels, self._ends, strict=False):
            yield channel, self.joined[start:end]
            start = end
