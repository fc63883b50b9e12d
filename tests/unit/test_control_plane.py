"""Which sandbox a request is for, and the answers of the sandbox plane when it can't be served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sandbox_local.app import App
from sandbox_local.control.api import ControlPlane
from sandbox_local.control.plan import Plan
from sandbox_local.control.registry import Registry, Sandbox, State
from sandbox_local.http import Request, Response
from sandbox_local.isolation.base import BoxGone
from sandbox_local.plane import Address, BadAddress, SandboxPlane, address
from tests.unit.control_standin import StandinBackend, request, with_registry


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"host": "49983-iabc.e2b.app"}, Address("iabc", 49983)),
        ({"host": "8000-iabc.localhost:3000"}, Address("iabc", 8000)),
        ({"host": "8000-iabc:3000"}, Address("iabc", 8000)),
        ({"host": "8000-iabc-6532622b.e2b.app"}, Address("iabc", 8000)),
        ({"host": "127.0.0.1:3000", "e2b_sandbox_id": "iabc", "e2b_sandbox_port": "80"}, Address("iabc", 80)),
        (
            {"host": "sandbox.e2b.app", "e2b_sandbox_id": "iabc", "e2b_sandbox_port": "80"},
            Address("iabc", 80),
        ),
        ({"host": "1-ia.x", "e2b_sandbox_id": "iother", "e2b_sandbox_port": "2"}, Address("ia", 1)),
        ({"host": "127.0.0.1:3000"}, None),
        ({"host": "api.e2b.app"}, None),
        ({"host": "my-machine.lan:3000"}, None),
        ({"host": "[::1]:3000"}, None),
        ({}, None),
    ],
)
def test_the_host_or_the_headers_say_which_sandbox_is_meant(
    headers: dict[str, str], wanted: Address | None
) -> None:
    assert address(request("GET", "/", **headers)) == wanted


def test_the_query_of_a_link_to_a_file_says_it_too() -> None:
    query = "?path=x&e2b-sandbox-id=iabc&e2b-sandbox-port=49983"
    assert address(request("GET", f"/files{query}", host="127.0.0.1:3000")) == Address("iabc", 49983)
    assert address(request("GET", f"/sandboxes{query}", host="127.0.0.1:3000")) is None
    named = {"e2b_sandbox_id": "iother", "e2b_sandbox_port": "49983"}
    assert address(request("GET", f"/files{query}", **named)) == Address("iother", 49983)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"e2b_sandbox_id": "iabc"}, "missing header"),
        ({"e2b_sandbox_port": "80"}, "missing header"),
        ({"e2b_sandbox_id": "IABC", "e2b_sandbox_port": "80"}, "sandbox id"),
        ({"e2b_sandbox_id": "a/b", "e2b_sandbox_port": "80"}, "sandbox id"),
        ({"e2b_sandbox_id": "", "e2b_sandbox_port": "80"}, "sandbox id"),
        ({"e2b_sandbox_id": "iabc", "e2b_sandbox_port": "0"}, "port"),
        ({"e2b_sandbox_id": "iabc", "e2b_sandbox_port": "65536"}, "port"),
        ({"e2b_sandbox_id": "iabc", "e2b_sandbox_port": "\u0661"}, "port"),
        ({"host": "99999-iabc.x"}, "port"),
        ({"host": "80-IABC.x"}, "sandbox id"),
    ],
)
def test_a_wrong_address_is_told_apart_from_none(headers: dict[str, str], message: str) -> None:
    with pytest.raises(BadAddress, match=message):
        address(request("GET", "/", **headers))


class Echo:
    """An envd that says which sandbox it serves."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.closed = 0
        self.failure: Exception | None = None

    async def handle(self, request: Request) -> Response:
        if self.failure is not None:
            raise self.failure
        return Response(200, {}, self.sandbox.sandbox_id.encode())

    async def close(self) -> None:
        self.closed += 1


def with_app(test: Callable[[App, Registry, list[Echo]], Awaitable[None]]) -> None:
    async def body(registry: Registry, backend: StandinBackend) -> None:
        made: list[Echo] = []

        def make(sandbox: Sandbox) -> Echo:
            made.append(Echo(sandbox))
            return made[-1]

        await test(App(ControlPlane(registry, "key", None), SandboxPlane(registry, make)), registry, made)

    with_registry(body)


def to(sandbox_id: str, target: str = "/", port: int = 49983, **headers: str) -> Request:
    return request("GET", target, host=f"{port}-{sandbox_id}.localhost", **headers)


def said(response: Response) -> dict[str, Any]:
    """The JSON of an answer."""
    assert isinstance(response.body, bytes)
    answer = json.loads(response.body)
    assert isinstance(answer, dict)
    return answer


def test_envd_is_made_once_for_each_sandbox_and_closed_with_it() -> None:
    async def test(app: App, registry: Registry, made: list[Echo]) -> None:
        one, other = [await registry.create(Plan(timeout=60)) for _ in range(2)]
        for sandbox in (one, other, one):
            assert (await app.handle(to(sandbox.sandbox_id))).body == sandbox.sandbox_id.encode()
        assert len(made) == 2
        await registry.kill(one.sandbox_id)
        assert [echo.closed for echo in made] == [1, 0]

    with_app(test)


def test_a_sandbox_that_is_not_there_is_the_documented_502() -> None:
    """G28: gone and port closed are told apart."""

    async def test(app: App, registry: Registry, made: list[Echo]) -> None:
        response = await app.handle(to("inothing"))
        assert response.status == 502
        assert said(response) == {
            "code": 502,
            "message": "The sandbox was not found",
            "sandboxId": "inothing",
        }

    with_app(test)


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto"])
def test_a_grpc_client_is_refused_in_the_words_of_grpc(content_type: str) -> None:
    async def test(app: App, registry: Registry, made: list[Echo]) -> None:
        response = await app.handle(to("inothing", content_type=content_type))
        assert (response.status, response.body) == (200, b"")
        assert response.headers["grpc-status"] == "14"
        assert response.headers["grpc-message"] == "The sandbox was not found"

    with_app(test)


def test_a_box_that_ends_under_a_request_is_the_same_502() -> None:
    async def test(app: App, registry: Registry, made: list[Echo]) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        await app.handle(to(sandbox.sandbox_id))
        made[0].failure = BoxGone()
        assert "was not found" in said(await app.handle(to(sandbox.sandbox_id)))["message"]

    with_app(test)


def test_a_paused_sandbox_is_not_found_unless_it_resumes_by_itself() -> None:
    async def test(app: App, registry: Registry, made: list[Echo]) -> None:
        stays = await registry.create(Plan(timeout=60))
        resumes = await registry.create(Plan(timeout=60, auto_pause=True, auto_resume=True))
        for sandbox in (stays, resumes):
            await registry.pause(sandbox.sandbox_id)
        assert "was not found" in said(await app.handle(to(stays.sandbox_id)))["message"]
        answers = await asyncio.gather(*(app.handle(to(resumes.sandbox_id)) for _ in range(5)))
        assert {answer.status for answer in answers} == {200}
        assert (stays.state, resumes.state) == (State.PAUSED, State.RUNNING)

    with_app(test)


@pytest.mark.parametrize(
    "path",
    ["/init", "/freeze", "/unfreeze", "/collapse", "/fsfreeze", "/fsthaw", "/upgrade", "/%69nit"],
)
def test_what_an_orchestrator_asks_of_envd_is_not_open_to_clients(path: str) -> None:
    async def test(app: App, registry: Registry, made: list[Echo]) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        response = await app.handle(to(sandbox.sandbox_id, path))
        assert response.status == 404
        assert "path" in said(response)
        assert made == []

    with_app(test)


def test_closed_ports_want_the_traffic_token_and_envd_does_not() -> None:
    async def test(app: App, registry: Registry, made: list[Echo]) -> None:
        sandbox = await registry.create(Plan(timeout=60, public_traffic=False))
        assert (await app.handle(to(sandbox.sandbox_id))).status == 200
        for headers in ({}, {"e2b_traffic_access_token": "wrong"}, {"e2b_traffic_access_token": "\u00e9"}):
            response = await app.handle(to(sandbox.sandbox_id, port=8000, **headers))
            assert response.status == 403
            assert str(sandbox.traffic_access_token) not in str(said(response))

    with_app(test)


def test_a_wrong_address_is_answered_in_plain_text() -> None:
    async def test(app: App, registry: Registry, made: list[Echo]) -> None:
        response = await app.handle(request("GET", "/", host="localhost", e2b_sandbox_id="iabc"))
        assert response.status == 400
        assert response.headers["content-type"].startswith("text/plain")
        assert isinstance(response.body, bytes)
        assert response.body.startswith(b"missing header")

    with_app(test)


def test_requests_are_noted_for_who_waits_for_idleness() -> None:
    async def test(app: App, registry: Registry, made: list[Echo]) -> None:
        before = app.last_request
        await asyncio.sleep(0.01)
        await app.handle(request("GET", "/health"))
        assert app.last_request > before

    with_app(test)
