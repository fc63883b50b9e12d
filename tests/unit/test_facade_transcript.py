"""What a command's events become: text, results, errors."""

from __future__ import annotations

import itertools
import logging
import random
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import CommandTimeoutException, ConnectionException, SandboxException
from sandbox_sync.retained import OVERHEAD, Channel, Chunk, Retained
from sandbox_sync.transcript import Decoder, Piece, Transcript
from sandbox_sync.transport.log import CallLog
from sandbox_sync.transport.streams import RpcStream

FOREVER = Deadline(None)


class Played:
    """Messages as a channel's stream has them."""

    def __init__(self, messages: Iterable[pb.StartResponse]) -> None:
        self._messages = iter(messages)

    def __iter__(self) -> Iterator[pb.StartResponse]:
        return self._messages

    def limit(self, deadline: Deadline, silence: float | None = None) -> None:
        raise NotImplementedError("nobody bounds the reading here")

    def cancel(self) -> None:
        raise NotImplementedError("nobody cancels here")


def stream(messages: Iterable[pb.StartResponse]) -> RpcStream[pb.StartResponse]:
    log = CallLog(logging.getLogger(__name__), "POST", "/process.Process/Start", None)
    return RpcStream(Played(messages), [], lambda failure: ConnectionException(str(failure)), log)


def event(**fields: Any) -> pb.StartResponse:
    return pb.StartResponse(event=pb.ProcessEvent(**fields))


def started(pid: int = 7) -> pb.StartResponse:
    return event(start=pb.ProcessEvent.StartEvent(pid=pid))


def data(channel: str, content: bytes) -> pb.StartResponse:
    return event(data=pb.ProcessEvent.DataEvent(**{channel: content}))


def ended(exit_code: int = 0) -> pb.StartResponse:
    return event(end=pb.ProcessEvent.EndEvent(exit_code=exit_code, exited=True))


def follow(*messages: pb.StartResponse, limit: int | None = None) -> Transcript:
    transcript = Transcript(limit)
    transcript.follow(stream(messages), None)
    return transcript


def joined(pieces: Iterable[Piece]) -> tuple[str, str, bytes]:
    out, err, pty = "", "", b""
    for piece in pieces:
        assert sum(part is not None for part in piece) == 1
        out, err, pty = out + (piece[0] or ""), err + (piece[1] or ""), pty + (piece[2] or b"")
    return out, err, pty


TEXT = "a \u00e4 \u20ac \U0001f600 z\n" * 3


@pytest.mark.parametrize("size", range(1, 8))
def test_characters_torn_apart_by_chunks_stay_whole(size: int) -> None:
    """G15: text split at every byte boundary equals the original, also when both channels are interleaved."""
    raw = TEXT.encode()
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    messages = [data(channel, chunk) for chunk in chunks for channel in ("stdout", "stderr")]
    seen: list[Piece] = []
    transcript = Transcript(None)
    transcript.follow(stream([started(), *messages, ended()]), seen.append)
    assert joined(seen) == (TEXT, TEXT, b"")
    assert joined(transcript.pieces(FOREVER)) == (TEXT, TEXT, b"")
    assert transcript.text("stdout") == transcript.text("stderr") == TEXT
    assert transcript.data("stdout") == raw


def test_invalid_bytes_never_raise_and_are_there_as_they_came() -> None:
    """G15: invalid UTF-8 becomes U+FFFD, and the raw bytes are available."""
    junk = bytes(range(256)) + b"\xe2\x82"
    seen: list[Piece] = []
    transcript = Transcript(None)
    transcript.follow(stream([started(), data("stdout", junk), data("pty", junk), ended()]), seen.append)
    assert transcript.data("stdout") == junk
    assert transcript.text("stdout") == junk.decode("utf-8", "replace")
    assert joined(seen) == (junk.decode("utf-8", "replace"), "", junk)


def test_live_text_leaves_out_a_character_that_is_not_whole_yet() -> None:
    transcript = Transcript(None)
    euro = "\u20ac".encode()

    def messages() -> Iterator[pb.StartResponse]:
        yield data("stdout", b"1 " + euro[:2])
        assert transcript.text("stdout") == "1 "
        yield data("stdout", euro[2:])
        assert transcript.text("stdout") == "1 \u20ac"
        yield ended()

    transcript.follow(stream(messages()), None)


def test_events_in_any_order_give_the_same_transcript() -> None:
    """G9: data before the start is delivered; a byte-exact transcript over 1,000 random orders."""
    rng = random.Random(20261123)
    for _ in range(1000):
        chunks = [
            (rng.choice(("stdout", "stderr", "pty")), rng.randbytes(rng.randrange(4)))
            for _ in range(rng.randrange(8))
        ]
        messages = [data(*chunk) for chunk in chunks]
        for extra in (started(), event(keepalive=pb.ProcessEvent.KeepAlive()), event(), pb.StartResponse()):
            messages.insert(rng.randrange(len(messages) + 1), extra)
        transcript = follow(*messages, ended())
        assert transcript.pid == 7
        for channel in ("stdout", "stderr", "pty"):
            assert transcript.data(channel) == b"".join(c for name, c in chunks if name == channel)


def test_a_stream_that_ends_before_the_command_is_an_error() -> None:
    """G12: a cut stream is never success, and the error has what was received."""
    transcript = Transcript(None)
    with pytest.raises(ConnectionException) as caught:
        transcript.follow(stream([started(), data("stdout", b"half")]), None)
    transcript.fail(caught.value)
    assert transcript.settled
    assert (caught.value.pid, caught.value.stdout, caught.value.stderr) == (7, "half", "")


def test_an_error_after_the_end_changes_nothing() -> None:
    def messages() -> Iterator[pb.StartResponse]:
        yield started()
        yield ended(3)
        raise ConnectionException("reset")

    transcript = Transcript(None)
    transcript.follow(stream(messages()), None)
    assert transcript.end is not None
    assert transcript.end.exit_code == 3
    assert transcript.failure is None


def test_only_the_newest_output_is_kept_beyond_the_limit() -> None:
    transcript = follow(
        started(), *(data("stdout", b"%04d" % n) for n in range(5000)), ended(), limit=100_000
    )
    assert transcript.truncated
    kept = transcript.text("stdout")
    numbers = [int(kept[at : at + 4]) for at in range(0, len(kept), 4)]
    assert numbers == list(range(numbers[0], 5000))
    assert 300 < len(numbers) < 800  # 132 bytes each, of which 75 to 100 kB are kept


def writing(transcript: Transcript, messages: Iterable[pb.StartResponse]) -> threading.Thread:
    writer = threading.Thread(target=transcript.follow, args=(stream(messages), None))
    writer.start()
    return writer


MANY = [*(data("stdout", b"%04d" % n) for n in range(1000)), ended()]


def test_an_iteration_that_gets_on_is_waited_for() -> None:
    transcript = Transcript(10_000, to_iterate=True)
    pieces = transcript.pieces(FOREVER)
    writer = writing(transcript, MANY)
    seen = []
    for number, (out, _, _) in enumerate(pieces):
        if number % 50 == 0:
            time.sleep(0.01)
        seen.append(out)
    writer.join()
    assert seen == [f"{n:04}" for n in range(1000)]
    assert transcript.truncated


def test_an_iteration_that_stands_still_is_left_behind_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox_sync.transcript.PATIENCE_SECONDS", 0.2)
    transcript = Transcript(10_000, to_iterate=True)
    pieces = transcript.pieces(FOREVER)
    writer = writing(transcript, MANY)
    assert next(pieces) == ("0000", None, None)
    writer.join(5)
    assert not writer.is_alive()
    with pytest.raises(SandboxException, match="dropped"):
        list(pieces)


def test_who_waits_for_the_end_is_not_waited_for() -> None:
    transcript = Transcript(10_000, to_iterate=True)
    writer = writing(transcript, MANY)
    assert transcript.wait(Deadline.after(5))
    writer.join()
    assert transcript.truncated


def test_an_iteration_that_is_given_up_holds_nothing_up() -> None:
    transcript = Transcript(10_000)
    writer = writing(transcript, MANY)
    for _ in transcript.pieces(FOREVER):
        break
    writer.join(5)
    assert not writer.is_alive()


def test_a_failure_frees_the_writer_from_an_iteration_that_stands_still() -> None:
    transcript = Transcript(10_000, to_iterate=True)
    pieces = transcript.pieces(FOREVER)
    writer = writing(transcript, MANY)
    assert next(pieces) == ("0000", None, None)
    transcript.fail(ConnectionException("disconnected"))
    writer.join(5)
    assert not writer.is_alive()


def test_many_readers_see_all_output_while_it_is_written() -> None:
    transcript = Transcript(None)
    words = [f"{n}\n" for n in range(3000)]
    seen: list[str] = []

    def read() -> None:
        seen.append(joined(transcript.pieces(FOREVER))[0])

    readers = [threading.Thread(target=read) for _ in range(5)]
    for reader in readers:
        reader.start()
    transcript.follow(stream([started(), *(data("stdout", word.encode()) for word in words), ended()]), None)
    for reader in readers:
        reader.join(20)
    assert seen == ["".join(words)] * 5


def test_waiting_ends_with_the_time_and_with_the_command() -> None:
    transcript = Transcript(None)
    before = time.monotonic()
    assert not transcript.wait(Deadline.after(0.1))
    assert 0.1 <= time.monotonic() - before < 1
    assert list(transcript.pieces(Deadline.after(0.01))) == []
    timer = threading.Timer(0.05, transcript.fail, [CommandTimeoutException("time is up")])
    timer.start()
    assert transcript.wait(Deadline.after(10))
    assert isinstance(transcript.failure, CommandTimeoutException)


def test_an_interruption_is_raised_once() -> None:
    transcript = Transcript(None)
    transcript.interrupt(KeyError("callback"))
    with pytest.raises(KeyError):
        transcript.wait(FOREVER)
    assert not transcript.wait(Deadline.after(0.01))


def test_of_many_that_wait_one_is_interrupted_and_the_others_wait_on() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            transcript = Transcript(None)
            said: list[object] = []

            def wait(transcript: Transcript = transcript, said: list[object] = said) -> None:
                try:
                    said.append(transcript.wait(Deadline.after(0.03)))
                except KeyError:
                    said.append("interrupted")

            waiting = [threading.Thread(target=wait) for _ in range(8)]
            for one in waiting:
                one.start()
            transcript.interrupt(KeyError())
            for one in waiting:
                one.join()
            assert sorted(map(str, said)) == ["False"] * 7 + ["interrupted"]
    finally:
        sys.setswitchinterval(interval)


def test_the_first_failure_stands() -> None:
    transcript = Transcript(None, pid=5)
    first = ConnectionException("first")
    transcript.fail(first)
    transcript.fail(ConnectionException("second"))
    assert transcript.failure is first
    assert first.pid == 5


def test_a_decoder_finishes_with_a_replacement_for_half_a_character() -> None:
    decoder = Decoder()
    assert decoder.feed("stdout", b"\xe2\x82") is None
    assert list(decoder.finish()) == [("\ufffd", None, None)]


@given(st.text(), st.lists(st.integers(0, 40)))
def test_a_decoder_gives_the_same_text_however_its_bytes_are_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    decoder = Decoder()
    pieces = [decoder.feed("stdout", data[start:end]) for start, end in itertools.pairwise(places)]
    assert "".join(piece[0] or "" for piece in pieces if piece) == text
    assert list(decoder.finish()) == []


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_kept_is_found_again_as_it_came(data: st.DataObject) -> None:
    """Whatever is packed: against a plain list, with small and large chunks of several channels."""
    rng = random.Random(data.draw(st.integers()))
    every: list[Channel] = ["stdout", "stderr", "pty"]
    channels = every[: rng.choice((1, 3))]
    sizes = rng.choice(((0, 1, 16), (1, 16, 3000)))
    kept, plain, dropped = Retained(), list[Chunk](), 0
    for _ in range(rng.randrange(1500)):
        chunk: Chunk = rng.choice(channels), rng.randbytes(rng.choice(sizes))
        kept.append(*chunk)
        plain.append(chunk)
        if rng.random() < 0.005:
            count = kept.beginning(rng.randrange(kept.size + 1))
            kept.drop(count)
            del plain[:count]
            dropped += count
    assert (kept.dropped, kept.end) == (dropped, dropped + len(plain))
    assert kept.size == sum(len(content) + OVERHEAD for _, content in plain)
    seen: list[Chunk] = []
    while more := kept.after(dropped + len(seen)):
        seen += more
    assert seen == plain
    for start in {rng.randrange(len(plain) + 1) for _ in range(5)}:
        more = kept.after(dropped + start)
        assert more == plain[start : start + len(more)]
        assert more or start == len(plain)
    for channel in channels:
        assert kept.data(channel) == b"".join(content for name, content in plain if name == channel)


@pytest.mark.parametrize("channels", [["stdout"], ["stdout", "stderr"]])
def test_small_chunks_take_little_more_memory_than_their_bytes(channels: list[Channel]) -> None:
    tracemalloc.start()
    try:
        kept = Retained()
        for number in range(50_000):
            kept.append(channels[number % len(channels)], b"%015d\n" % number)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 50_000 * (16 + 24)


def test_the_oldest_are_dropped_by_the_bytes_that_they_count_for() -> None:
    kept = Retained()
    for number in range(2000):
        kept.append("stdout", b"%03d" % (number % 1000))
    assert [kept.beginning(size) for size in (0, 1, 131, 132, 1000 * 131, kept.size)] == [
        0,
        1,
        1,
        2,
        1000,
        2000,
    ]
