"""Commands whose start is not seen: none may be left behind by a call that has failed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_local.rpc import Code, Context, RpcError
from sandbox_sync import InvalidArgumentException, RequestTimeoutException, TimeoutException
from tests.unit.facade_service import PID, Service, output, sandbox, until

KILLED = [(PID, pb.SIGNAL_SIGKILL)]


@pytest.fixture(params=["connect", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def starting_late(service: Service, *events: pb.StartResponse, listed_after: int = 0) -> None:
    """Have commands run that do not say so; some listings are made before they appear in one."""

    async def script(request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
        service.listed_after = service.listings + listed_after
        others = [pb.ProcessInfo(pid=1), pb.ProcessInfo(pid=2, tag="another's")]
        service.listed = [*others, pb.ProcessInfo(pid=PID, tag=request.tag)]
        for one in events:
            yield one
        await asyncio.Event().wait()

    service.start = script


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("listed_after", [0, 2])
def test_a_start_that_is_not_answered_in_time_leaves_no_command(
    transport: str, background: bool, listed_after: int
) -> None:
    with sandbox(transport) as (service, sb):
        starting_late(service, listed_after=listed_after)
        with pytest.raises(RequestTimeoutException):
            sb.commands.run("x", background=background, request_timeout=0.3)  # type: ignore[call-overload]
        until(lambda: service.signals == KILLED)


def test_a_start_that_takes_longer_than_the_command_may_leaves_no_command(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        starting_late(service)
        with pytest.raises(TimeoutException):
            sb.commands.run("x", timeout=0.2)
        until(lambda: service.signals == KILLED)


def test_a_command_that_tells_no_id_is_found_and_killed(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        starting_late(service, output("stdout", b"x"))

        def on_stdout(text: str) -> None:
            raise KeyError(text)

        with pytest.raises(KeyError):
            sb.commands.run("x", on_stdout=on_stdout)
        until(lambda: service.signals == KILLED)


def test_a_command_that_never_appears_is_not_looked_for_for_long(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        starting_late(service, listed_after=1000)
        with pytest.raises(RequestTimeoutException):
            sb.commands.run("x", request_timeout=0.2)
        until(lambda: "sandbox-sync-kill" not in {thread.name for thread in threading.enumerate()})
        assert 2 <= service.listings <= 10
        assert service.signals == []


def test_a_start_that_is_refused_leaves_nothing_to_look_for(transport: str) -> None:
    async def refuse(request: Any, context: Context) -> AsyncIterator[pb.StartResponse]:
        raise RpcError(Code.INVALID_ARGUMENT, "no")
        yield

    with sandbox(transport) as (service, sb):
        service.start = refuse
        with pytest.raises(InvalidArgumentException):
            sb.commands.run("x")
        assert "sandbox-sync-kill" not in {thread.name for thread in threading.enumerate()}
        assert service.listings == 0


def test_each_command_has_a_tag_of_its_own_that_is_not_shown(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        for _ in range(3):
            sb.commands.run("x")
        tags = {request.tag for request, _ in service.starts}
        assert len(tags) == 3
        service.listed = [pb.ProcessInfo(pid=5, tag=tag) for tag in [*tags, "mine"]]
        assert [process.tag for process in sb.commands.list()] == [None, None, None, "mine"]


def test_each_start_carries_a_request_id_of_its_own(transport: str) -> None:
    """G60: servers that know of it can tell a repeated request from a new one."""
    with sandbox(transport) as (service, sb):
        for _ in range(3):
            sb.commands.run("x")
        assert len({context.headers.get("idempotency-key", "") for _, context in service.starts} - {""}) == 3
