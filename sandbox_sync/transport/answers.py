"""What becomes of answers: their content, whole and unpacked, or the failure that they are."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Iterable, Iterator

from sandbox_sync.transport.connections import NotConnectedError
from sandbox_sync.transport.failures import Failure, Reason
from sandbox_sync.transport.heads import AnswerError
from sandbox_sync.transport.http1 import BLOCK, NETWORK_ERRORS, Answer
from sandbox_sync.transport.sockets import TimeLimit

MAX_MESSAGE = 128 * 1024 * 1024
"""The largest answer that is held in memory whole."""

# Alerts of a server that does not go on with the handshake, in OpenSSL's words.
_TLS_REFUSALS = (
    "ALERT_CERTIFICATE",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_UNKNOWN_CA",
    "ALERT_ACCESS_DENIED",
    "ALERT_HANDSHAKE_FAILURE",
)
# A timeout that fires so many seconds before the deadline is the deadline's.
_CLOCK_SLACK = 0.05


def read_all(answer: Answer, limit: TimeLimit | None) -> bytes:
    """The rest of an answer; its connection is free for other calls afterwards.

    Raises:
        Failure: It did not come whole, or it is larger than `MAX_MESSAGE`.
    """
    require_length(answer)
    parts = []
    size = 0
    try:
        for part in content_of(answer):
            parts.append(part)
            size += len(part)
            if size > MAX_MESSAGE:
                raise Failure(f"the answer is larger than {MAX_MESSAGE} bytes", reason="answer")
    except NETWORK_ERRORS as error:
        raise failure_of(error, limit) from None
    finally:
        answer.close()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def require_length(answer: Answer) -> None:
    """Make sure that a good answer says where it ends, so that a broken connection is not taken for its end.

    Raises:
        Failure: It does not.
    """
    if 200 <= answer.status < 300 and not answer.framed:
        answer.close()
        raise Failure(
            "the answer does not say how long it is, so it may have been cut short", reason="broken"
        )


def content_of(answer: Answer) -> Iterator[bytes]:
    """The content of an answer as it comes, unpacked if it comes packed; none of it empty.

    Raises:
        Failure: It is damaged, or packed in a way that nobody asks for. Besides, `http1.NETWORK_ERRORS`.
    """
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return answer.blocks()
    if coding == "gzip":
        return _unpacked(answer.blocks())
    raise Failure(f"the answer came in the coding {coding!r}, which was not asked for", reason="broken")


def _unpacked(blocks: Iterable[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    begun = False
    for packed in blocks:
        begun = True
        while packed:
            if unpacker.eof:
                unpacker = zlib.decompressobj(wbits=31)
            try:
                data = unpacker.decompress(packed, BLOCK)
            except zlib.error as error:
                raise Failure(f"the compressed content is damaged: {error}", reason="broken") from None
            if data:
                yield data
            packed = unpacker.unconsumed_tail or unpacker.unused_data
    if begun and not unpacker.eof:
        raise Failure("the compressed content ends before its end", reason="broken")


def failure_of(error: Exception, limit: TimeLimit | None) -> Failure:
    """What one of `http1.NETWORK_ERRORS` means.

    Args:
        error: The error.
        limit: The limit that was set when it happened.
    """
    words = ""
    root = error
    sent = True
    if isinstance(error, NotConnectedError):
        root = error.cause
        sent = False
        if error.at_proxy:
            words = "the proxy refused: " if error.refused else "the proxy cannot be reached: "
    # In TLS 1.3 the server looks at the client's certificate when the client already sends its request.
    refused = isinstance(root, ssl.SSLError) and any(word in (root.reason or "") for word in _TLS_REFUSALS)
    sent = sent and not refused
    reason: Reason = "broken" if sent else "connect"
    if isinstance(root, TimeoutError) and limit is not None:
        left = limit.deadline.remaining()
        reason = "deadline" if left is not None and left <= _CLOCK_SLACK else "silence"
    elif isinstance(root, ssl.SSLError) and not sent:
        reason = "tls"
        words += "the server wants another client certificate (client_cert): " if refused else ""
    failure = Failure(words + (str(root) or type(root).__name__), reason=reason, sent=sent)
    failure.is_of_something_else = isinstance(root, AnswerError) and root.foreign
    return failure
