"""Events of commands in any order, over real connections."""

from __future__ import annotations

import random

import pytest
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_sync import Sandbox
from tests.unit.facade_service import PID, ended, event, output, playing, sandbox, started

ORDERS = 1000


def an_order(chance: random.Random) -> tuple[list[pb.StartResponse], dict[str, bytes]]:
    """Events of a command, and what it wrote."""
    text = "a\u00e4\u20ac\U0001f600\n"
    chunks: list[tuple[str, bytes]] = []
    for _ in range(chance.randrange(1, 9)):
        content = (
            chance.randbytes(chance.randrange(5))
            if chance.random() < 0.5
            else text.encode()[: chance.randrange(12)]
        )
        chunks.append((chance.choice(("stdout", "stderr")), content))
    events = [output(*chunk) for chunk in chunks]
    for other in (started(), event(keepalive=pb.ProcessEvent.KeepAlive()), event(), pb.StartResponse()):
        events.insert(chance.randrange(len(events) + 1), other)
    written = {
        channel: b"".join(content for name, content in chunks if name == channel)
        for channel in ("stdout", "stderr")
    }
    return [*events, ended()], written


@pytest.mark.parametrize("transport", ["connect", "grpc"])
def test_every_order_of_events_gives_what_was_written(transport: str) -> None:
    """G9: connect(): data before `start` is delivered; a byte-exact transcript over 1,000 random orders.

    Every eighth of them goes through run() and a handle of run() too, and the pieces are counted as well.
    """
    chance = random.Random(20261123)
    with sandbox(transport) as (service, sb):
        for number in range(ORDERS):
            events, written = an_order(chance)
            service.start = playing(*events)
            out, err = (written[name].decode("utf-8", "replace") for name in ("stdout", "stderr"))
            handle = sb.commands.connect(PID)
            result = handle.wait(timeout=10)
            assert (handle.stdout_bytes, handle.stderr_bytes) == (written["stdout"], written["stderr"])
            assert (result.stdout, result.stderr) == (out, err)
            if number % 8 == 0:
                assert through_run(sb) == (out, err)


def through_run(sb: Sandbox) -> tuple[str, str]:
    """What run() gives, in both ways, by result, callback and iteration: the same each time."""
    called: tuple[list[str], list[str]] = ([], [])
    result = sb.commands.run("x", on_stdout=called[0].append, on_stderr=called[1].append)
    texts = (result.stdout, result.stderr)
    assert ("".join(called[0]), "".join(called[1])) == texts
    handle = sb.commands.run("x", background=True)
    assert handle.pid == PID
    pieces = list(handle)
    assert ("".join(o or "" for o, _, _ in pieces), "".join(e or "" for _, e, _ in pieces)) == texts
    assert (handle.stdout, handle.stderr) == texts
    return texts
