"""Envelopes, codecs and the circumstances of a call, as values."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
import zlib
from collections.abc import AsyncIterator, Callable

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from sandbox_sync_rpc import filesystem_pb2, process_pb2, services

from sandbox_local.http import Headers
from sandbox_local.rpc import Code, Context, Rpc, RpcError
from sandbox_local.rpc.codec import JSON, PROTO
from sandbox_local.rpc.envelope import Unpacker, messages, pack
from sandbox_local.rpc.payload import MESSAGE_BYTES, check_encoding, decode, decompress, encode

FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8)


@given(FRAMES, st.data())
def test_envelopes_come_out_as_they_went_in_however_they_are_split(
    frames: list[tuple[int, bytes]], choose: st.DataObject
) -> None:
    stream = b"".join(pack(flags, payload) for flags, payload in frames)
    cuts = sorted(choose.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    unpacker = Unpacker()
    found: list[tuple[int, bytes]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found.extend(unpacker.feed(stream[start:end]))
    unpacker.end()
    assert found == frames


def refusal(call: Callable[[], object]) -> Code | None:
    """The code that a call fails with, None if it does not fail."""
    try:
        call()
    except RpcError as error:
        return error.code
    return None


def test_envelopes_come_out_wherever_the_stream_is_cut_in_two() -> None:
    stream = pack(0, b"abc") + pack(1, b"") + pack(2, b"{}")
    for cut in range(len(stream) + 1):
        unpacker = Unpacker()
        found = [*unpacker.feed(stream[:cut]), *unpacker.feed(stream[cut:])]
        assert found == [(0, b"abc"), (1, b""), (2, b"{}")]


@given(FRAMES.filter(bool), st.data())
def test_stream_that_ends_inside_an_envelope_is_an_error(
    frames: list[tuple[int, bytes]], choose: st.DataObject
) -> None:
    stream = b"".join(pack(flags, payload) for flags, payload in frames)
    whole = {0}
    for flags, payload in frames:
        whole.add(max(whole) + len(pack(flags, payload)))
    cut = choose.draw(st.integers(0, len(stream)).filter(lambda at: at not in whole))
    unpacker = Unpacker()
    list(unpacker.feed(stream[:cut]))
    with pytest.raises(RpcError, match="in the middle of a message"):
        unpacker.end()


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_messages_or_an_error_of_the_client(noise: bytes) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield noise

    async def read() -> None:
        async for _ in messages(body(), process_pb2.StartRequest, PROTO, "gzip"):
            pass

    assert refusal(lambda: asyncio.run(read())) in (None, Code.INVALID_ARGUMENT)


def test_envelope_that_announces_too_much_is_refused_before_it_is_read() -> None:
    with pytest.raises(RpcError, match="longer than") as caught:
        list(Unpacker().feed(b"\0" + (MESSAGE_BYTES + 1).to_bytes(4, "big")))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert list(Unpacker().feed(b"\0" + MESSAGE_BYTES.to_bytes(4, "big"))) == []


def test_gzip_is_undone_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decompress(gzip.compress(b"abc")) == b"abc"
    monkeypatch.setattr("sandbox_local.rpc.payload.MESSAGE_BYTES", 1000)
    assert decompress(gzip.compress(bytes(1000))) == bytes(1000)
    with pytest.raises(RpcError, match="longer than"):
        decompress(gzip.compress(bytes(1001)))


NOT_GZIP = {
    "nothing": b"",
    "noise": b"abc",
    "zlib": zlib.compress(b"abc"),
    "cut": gzip.compress(b"abc")[:-1],
    "followed by noise": gzip.compress(b"abc") + b"x",
    "two streams": gzip.compress(b"a") + gzip.compress(b"b"),
}


@pytest.mark.parametrize("noise", NOT_GZIP.values(), ids=NOT_GZIP)
def test_what_is_not_one_gzip_stream_is_refused(noise: bytes) -> None:
    with pytest.raises(RpcError) as caught:
        decompress(noise)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_large_messages_are_read_and_written_beside_the_loop(size: int) -> None:
    threads: list[int] = []

    class Codec:
        quick_bytes = 1000

        def encode(self, message: Message) -> bytes:
            threads.append(threading.get_ident())
            return PROTO.encode(message)

        def decode(self, data: bytes, kind: type[Message]) -> Message:
            threads.append(threading.get_ident())
            return PROTO.decode(data, kind)

    async def there_and_back(message: Message) -> Message:
        data = await encode(message, Codec())
        return await decode(data, type(message), Codec(), "identity")

    message = process_pb2.ProcessInput(stdin=bytes(size))
    assert asyncio.run(there_and_back(message)) == message
    assert [thread == threading.get_ident() for thread in threads] == [size == 10] * 2


def test_encodings_are_known_or_unimplemented() -> None:
    assert check_encoding("GZIP ") == "gzip"
    with pytest.raises(RpcError) as caught:
        check_encoding("br")
    assert caught.value.code is Code.UNIMPLEMENTED


def test_json_is_written_as_the_contract_says() -> None:
    entry = filesystem_pb2.EntryInfo(
        size=1 << 40, type=filesystem_pb2.FILE_TYPE_FILE, symlink_target="", name="ü"
    )
    assert (
        JSON.encode(entry)
        == b'{"name":"\\u00fc","type":"FILE_TYPE_FILE","size":"1099511627776","symlinkTarget":""}'
    )
    event = process_pb2.ProcessEvent(keepalive=process_pb2.ProcessEvent.KeepAlive())
    assert JSON.encode(event) == b'{"keepalive":{}}'
    assert JSON.encode(process_pb2.ProcessEvent.DataEvent(stdout=b"\xff")) == b'{"stdout":"/w=="}'
    assert JSON.encode(process_pb2.StartRequest(stdin=False)) == b'{"stdin":false}'


@pytest.mark.parametrize(
    "text",
    [
        b'{"symlinkTarget":"x","size":"5"}',
        b'{"symlink_target":"x","size":5}',
        b'{"symlink_target":"x","size":5,"unknown":{"deep":[1]},"mode":null}',
    ],
)
def test_json_is_read_in_every_spelling_and_unknown_fields_are_ignored(text: bytes) -> None:
    assert JSON.decode(text, filesystem_pb2.EntryInfo) == filesystem_pb2.EntryInfo(symlink_target="x", size=5)


@pytest.mark.parametrize("text", ["+/8=", "-_8=", "+/8", "-_8"])
def test_bytes_in_json_are_read_in_every_base64(text: str) -> None:
    message = JSON.decode(b'{"stdout":"%b"}' % text.encode(), process_pb2.ProcessEvent.DataEvent)
    assert message == process_pb2.ProcessEvent.DataEvent(stdout=b"\xfb\xff")


BAD_JSON = {
    "empty": (process_pb2.ListRequest, b""),
    "not closed": (process_pb2.ListRequest, b"{"),
    "an array": (process_pb2.ListRequest, b"[]"),
    "a number": (process_pb2.ListRequest, b"1"),
    "null": (process_pb2.ListRequest, b"null"),
    "not utf-8": (process_pb2.StartRequest, b'{"tag":"\xff"}'),
    "lone surrogate": (process_pb2.StartRequest, b'{"tag":"\\ud800"}'),
    "wrong type": (process_pb2.StartRequest, b'{"tag":1}'),
    "wrong nested type": (process_pb2.StartRequest, b'{"process":{"args":"x"}}'),
    "twice the same": (process_pb2.StartRequest, b'{"tag":"a","tag":"b"}'),
    "deep arrays": (process_pb2.StartRequest, b'{"x":' + b"[" * 100_000),
    "deep objects": (process_pb2.StartRequest, b'{"process":' * 100_000),
    "endless number": (process_pb2.ProcessSelector, b'{"pid":' + b"9" * 10_000 + b"}"),
    "too large a number": (process_pb2.ProcessSelector, b'{"pid":4294967296}'),
    "negative number": (process_pb2.ProcessSelector, b'{"pid":-1}'),
    "infinite number": (process_pb2.ProcessSelector, b'{"pid":Infinity}'),
    "two of one": (process_pb2.ProcessInput, b'{"stdin":"YQ==","pty":"YQ=="}'),
}


@pytest.mark.parametrize(("kind", "text"), BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_is_no_message_is_an_error_of_the_client(kind: type[Message], text: bytes) -> None:
    with pytest.raises(RpcError) as caught:
        JSON.decode(text, kind)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert len(caught.value.message) < 300


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_arbitrary_json_values_give_a_message_or_an_error_of_the_client(value: object) -> None:
    for name in ("process", "pty", "tag", "stdin", "else"):
        text = json.dumps({name: value}).encode()
        refused = refusal(lambda: JSON.decode(text, process_pb2.StartRequest))  # noqa: B023 (called at once)
        assert refused in (None, Code.INVALID_ARGUMENT)


def test_empty_protobuf_is_an_empty_message() -> None:
    assert PROTO.decode(b"", process_pb2.ListRequest) == process_pb2.ListRequest()


@pytest.mark.parametrize("noise", [b"\xff", b"\x0a\x05ab", b"\x1a\x02\xff\xfe"])
def test_malformed_protobuf_is_an_error_of_the_client(noise: bytes) -> None:
    with pytest.raises(RpcError) as caught:
        PROTO.decode(noise, process_pb2.StartRequest)
    assert caught.value.code is Code.INVALID_ARGUMENT


def basic(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


@pytest.mark.parametrize(
    ("authorization", "user"),
    [
        (basic(b"root:"), "root"),
        (basic(b"root:secret:more"), "root"),
        (basic("ü:".encode()), "ü"),
        (basic(b":"), ""),
        ("basic " + base64.b64encode(b"a:").decode(), "a"),
        (basic(b"no colon"), None),
        (basic(b"\xff:"), None),
        ("Basic ***", None),
        ("Bearer " + base64.b64encode(b"root:").decode(), None),
        ("", None),
    ],
)
def test_user_is_that_of_basic_authorization(authorization: str, user: str | None) -> None:
    assert Context.of(Headers({"Authorization": authorization}), None).user == user


@pytest.mark.parametrize(("value", "timeout"), [("0", 0), ("1", 1), ("9999999999", 9999999999), (None, None)])
def test_timeout_is_that_of_the_header(value: str | None, timeout: int | None) -> None:
    headers = Headers({} if value is None else {"Connect-Timeout-Ms": value})
    assert Context.of(headers, None).timeout_ms == timeout


@pytest.mark.parametrize("value", ["", "-1", "1.5", "10000000000", "abc", "1 ", "\u0661"])
def test_timeout_that_is_no_number_of_ten_digits_is_an_error_of_the_client(value: str) -> None:
    with pytest.raises(RpcError) as caught:
        Context.of(Headers({"connect-timeout-ms": value}), None)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_service_is_bound_only_with_a_handler_for_every_method() -> None:
    with pytest.raises(ValueError, match="StreamInput"):
        Rpc([(services.PROCESS, dict.fromkeys(services.PROCESS.methods.keys() - {"StreamInput"}, print))])
    with pytest.raises(ValueError, match="Nonsense"):
        Rpc([(services.PROCESS, dict.fromkeys([*services.PROCESS.methods, "Nonsense"], print))])
    rpc = Rpc([(services.PROCESS, dict.fromkeys(services.PROCESS.methods, print))])
    assert "/process.Process/Start" in rpc
    assert "/filesystem.Filesystem/Stat" not in rpc
