"""The REST interface of the control plane, below the wire: which answer each request gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sandbox_sync_rest.models.listed_sandbox import ListedSandbox
from sandbox_sync_rest.models.sandbox import Sandbox
from sandbox_sync_rest.models.sandbox_detail import SandboxDetail

from sandbox_local.control.api import ControlPlane
from sandbox_local.control.registry import Registry
from sandbox_local.http import BodyTooLarge, HttpError, Response
from tests.unit.control_standin import StandinBackend, request, until, with_registry

KEY = "e2b_" + "0" * 40


class Api:
    """Asks a control plane."""

    def __init__(self, registry: Registry, backend: StandinBackend) -> None:
        self.plane = ControlPlane(registry, KEY, "localhost:3000")
        self.registry = registry
        self.backend = backend

    async def ask(self, method: str, target: str, body: object = None, **headers: str) -> Response:
        text = body if isinstance(body, (bytes, str)) else b"" if body is None else json.dumps(body)
        return await self.plane.handle(request(method, target, text, **{"x-api-key": KEY, **headers}))

    async def json(self, method: str, target: str, body: object = None, **headers: str) -> Any:
        response = await self.ask(method, target, body, **headers)
        assert isinstance(response.body, bytes)
        return json.loads(response.body)

    async def refused(self, method: str, target: str, body: object = None, **headers: str) -> HttpError:
        with pytest.raises(HttpError) as refusal:
            await self.ask(method, target, body, **headers)
        return refusal.value

    async def create(self, **fields: object) -> str:
        return str((await self.json("POST", "/v2/sandboxes", {"templateID": "base", **fields}))["sandboxID"])


def with_api(test: Callable[[Api], Awaitable[None]]) -> None:
    async def body(registry: Registry, backend: StandinBackend) -> None:
        await test(Api(registry, backend))

    with_registry(body, most=300)


def test_every_request_but_health_needs_the_key() -> None:
    async def test(api: Api) -> None:
        assert (await api.plane.handle(request("GET", "/health"))).status == 204
        for target in ("/v2/sandboxes", "/sandboxes/x", "/no/such/path"):
            for headers in ({}, {"x_api_key": ""}, {"x_api_key": KEY + "0"}, {"x_api_key": "\u00e9"}):
                with pytest.raises(HttpError) as refusal:
                    await api.plane.handle(request("GET", target, **headers))
                assert refusal.value.status == 401
                assert KEY not in refusal.value.message

    with_api(test)


def test_unknown_paths_are_404_and_wrong_methods_405() -> None:
    async def test(api: Api) -> None:
        assert (await api.refused("GET", "/nothing")).status == 404
        assert (await api.refused("GET", "/sandboxes/a/b/c")).status == 404
        refusal = await api.refused("PUT", "/v2/sandboxes")
        assert refusal.status == 405
        assert refusal.headers["allow"] == "GET, POST"

    with_api(test)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/sandboxes/i1/snapshots"),
        ("GET", "/snapshots"),
        ("POST", "/sandboxes/i1/fork"),
        ("PUT", "/sandboxes/i1/network"),
        ("POST", "/v3/templates"),
        ("PATCH", "/templates/some%2Fname%3Atag"),
        ("GET", "/volumes"),
        ("POST", "/secrets"),
    ],
)
def test_what_one_machine_cannot_do_is_501_and_says_why(method: str, target: str) -> None:
    async def test(api: Api) -> None:
        refusal = await api.refused(method, target, {})
        assert refusal.status == 501
        assert "local server" in refusal.message

    with_api(test)


def test_create_answers_what_a_client_needs() -> None:
    async def test(api: Api) -> None:
        response = await api.ask(
            "POST", "/v2/sandboxes", {"templateID": "base", "metadata": {}, "envVars": {}}
        )
        assert response.status == 201
        assert isinstance(response.body, bytes)
        wire = json.loads(response.body)
        sandbox = Sandbox.model_validate(wire)
        assert sandbox.alias == "base"
        assert sandbox.client_id == wire["clientID"] == "6532622b"
        assert sandbox.envd_access_token
        assert sandbox.domain == "localhost:3000"
        assert tuple(map(int, str(sandbox.envd_version).split("."))) >= (0, 6, 13)

    with_api(test)


def test_the_versions_of_create_differ_in_lifetime_and_security() -> None:
    async def test(api: Api) -> None:
        old = await api.json("POST", "/sandboxes", {"templateID": "base"})
        assert "envdAccessToken" not in old
        assert "envdAccessToken" in await api.json(
            "POST", "/sandboxes", {"templateID": "base", "secure": True}
        )
        new = await api.create()
        assert api.registry.get(old["sandboxID"]).plan.timeout == 15
        assert api.registry.get(new).plan.timeout == 300

    with_api(test)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("{", 400, "JSON"),
        ("[]", 400, "body"),
        ("", 400, "templateID"),
        ({}, 400, "templateID"),
        ({"templateID": 5}, 400, "templateID"),
        ({"templateID": "base", "timeout": 0}, 400, "timeout"),
        ({"templateID": "base", "timeout": -1}, 400, "timeout"),
        ({"templateID": "base", "timeout": "60"}, 400, "timeout"),
        ({"templateID": "base", "timeout": True}, 400, "timeout"),
        ({"templateID": "base", "timeout": 2**31}, 400, "timeout"),
        ({"templateID": "base", "metadata": {"a": 1}}, 400, "metadata.a"),
        ({"templateID": "base", "envVars": {"A=B": "c"}}, 400, "envVars"),
        ({"templateID": "base", "envVars": {"A": "\0"}}, 400, "envVars"),
        ({"templateID": "base", "autoResume": {"enabled": True}}, 400, "autoResume"),
        ({"templateID": "base", "autoPauseMemory": False}, 400, "autoPauseMemory"),
        ({"templateID": "base", "autoPause": True, "autoPauseMemory": False}, 501, "autoPauseMemory"),
        ({"templateID": "nothing"}, 404, "base"),
        ({"templateID": "base:no-such-tag"}, 404, "base"),
        ({"templateID": "base", "network": {"allowOut": ["10.0.0.0/8"]}}, 501, "network.allowOut"),
        ({"templateID": "base", "mcp": {"browserbase": {}}}, 501, "mcp"),
        ({"templateID": "base", "volumeMounts": [{"name": "v", "path": "/v"}]}, 501, "volumeMounts"),
    ],
)
def test_create_refuses_what_it_cannot_do_and_names_the_field(
    body: object, status: int, message: str
) -> None:
    async def test(api: Api) -> None:
        refusal = await api.refused("POST", "/v2/sandboxes", body)
        assert refusal.status == status
        assert message in refusal.message
        assert api.backend.boxes == []

    with_api(test)


@pytest.mark.parametrize("reference", ["base", "base:latest", "base:default"])
def test_the_base_template_is_known_by_its_names(reference: str) -> None:
    async def test(api: Api) -> None:
        await api.create(templateID=reference)

    with_api(test)


def test_closed_ports_need_a_secured_sandbox_and_give_a_traffic_token() -> None:
    async def test(api: Api) -> None:
        closed = {"templateID": "base", "network": {"allowPublicTraffic": False}}
        refusal = await api.refused("POST", "/sandboxes", closed)
        assert refusal.status == 400
        assert "secure" in refusal.message
        assert (await api.json("POST", "/v2/sandboxes", closed))["trafficAccessToken"]

    with_api(test)


def test_a_body_that_is_too_long_is_refused() -> None:
    async def test(api: Api) -> None:
        with pytest.raises(BodyTooLarge):
            await api.ask("POST", "/v2/sandboxes", b" " * (1 << 20) + b"{}")

    with_api(test)


def test_idempotency_key_is_obeyed_and_bound_to_the_parameters() -> None:
    """G21: a repeated create gives one sandbox, another create with its key a conflict that says so."""

    async def test(api: Api) -> None:
        first = await api.json(
            "POST", "/v2/sandboxes", {"templateID": "base", "timeout": 60}, idempotency_key="k"
        )
        again = await api.json(
            "POST", "/v2/sandboxes", '{"timeout":60, "templateID":"base"}', idempotency_key="k"
        )
        assert first == again
        assert len(api.backend.boxes) == 1
        refusal = await api.refused("POST", "/v2/sandboxes", {"templateID": "base"}, idempotency_key="k")
        assert refusal.status == 409
        assert "Idempotency-Key" in refusal.message

    with_api(test)


def test_get_tells_all_that_is_known() -> None:
    async def test(api: Api) -> None:
        name = await api.create(timeout=60, autoPause=True, autoResume={"enabled": True}, metadata={"a": "b"})
        wire = await api.json("GET", f"/sandboxes/{name}")
        detail = SandboxDetail.model_validate(wire)
        assert detail.state == "running"
        assert detail.metadata == {"a": "b"}
        assert detail.envd_access_token
        assert detail.lifecycle is not None
        assert (detail.lifecycle.on_timeout, detail.lifecycle.auto_resume) == ("pause", True)
        assert detail.started_at is not None
        assert detail.end_at is not None
        assert 58 < (detail.end_at - detail.started_at).total_seconds() < 62
        assert wire["startedAt"].endswith("Z")
        assert wire["cpuCount"] >= 1
        assert wire["memoryMB"] >= 128
        assert "pauseMode" not in wire
        await api.ask("POST", f"/sandboxes/{name}/pause", {})
        paused = await api.json("GET", f"/sandboxes/{name}")
        assert (paused["state"], paused["pauseMode"]) == ("paused", "full")

    with_api(test)


def test_an_id_may_carry_the_client_id_and_nothing_else() -> None:
    async def test(api: Api) -> None:
        name = await api.create()
        assert (await api.json("GET", f"/sandboxes/{name}-6532622b"))["sandboxID"] == name
        for bad in (f"{name}-a-b", "I1", "a%2Fb", "%00", "a_b", "-"):
            assert (await api.refused("GET", f"/sandboxes/{bad}")).status == 400
        assert (await api.refused("GET", "/sandboxes/i00000000000000000000")).status == 404

    with_api(test)


def test_the_life_of_a_sandbox_through_the_interface() -> None:
    async def test(api: Api) -> None:
        name = await api.create(timeout=60)
        path = f"/sandboxes/{name}"
        assert (await api.ask("POST", f"/v2{path}/connect", {})).status == 200
        assert (await api.ask("POST", f"{path}/connect", {"timeout": 30})).status == 200
        assert (await api.refused("POST", f"{path}/connect", {})).status == 400, "v1 requires a timeout"
        assert (await api.refused("POST", f"{path}/connect", {"timeout": 1, "memory": False})).status == 501
        assert (await api.refused("POST", f"{path}/resume")).status == 409
        assert (await api.ask("POST", f"{path}/timeout", {"timeout": 90})).status == 204
        assert (await api.refused("POST", f"{path}/timeout", {"timeout": -1})).status == 400
        assert (await api.ask("POST", f"{path}/refreshes")).status == 204
        assert (await api.refused("POST", f"{path}/refreshes", {"duration": 3601})).status == 400
        assert (await api.refused("POST", f"{path}/pause", {"memory": False})).status == 501
        assert (await api.ask("POST", f"{path}/pause")).status == 204
        assert (await api.refused("POST", f"{path}/pause", {})).status == 409
        assert (await api.refused("POST", f"{path}/timeout", {"timeout": 90})).status == 409
        assert (await api.ask("POST", f"/v2{path}/connect", {"timeout": 90})).status == 201
        assert (await api.ask("POST", f"{path}/pause")).status == 204
        assert (await api.ask("POST", f"{path}/resume", {"timeout": 90})).status == 201
        assert (await api.ask("DELETE", path)).status == 204
        for method, target in [
            ("DELETE", path),
            ("GET", path),
            ("POST", f"/v2{path}/connect"),
            ("POST", f"{path}/pause"),
            ("POST", f"{path}/refreshes"),
            ("GET", f"{path}/logs"),
        ]:
            assert (await api.refused(method, target)).status == 404
        assert (await api.refused("POST", f"{path}/timeout", {"timeout": 1})).status == 404

    with_api(test)


def test_lists_are_filtered_paged_and_counted() -> None:
    async def test(api: Api) -> None:
        made = [await api.create(metadata={"even": str(number % 2 == 0)}) for number in range(5)]
        await api.ask("POST", f"/sandboxes/{made[0]}/pause")
        await api.ask("DELETE", f"/sandboxes/{made[1]}")

        async def ids(target: str) -> list[str]:
            return [ListedSandbox.model_validate(item).sandbox_id for item in await api.json("GET", target)]

        assert await ids("/v2/sandboxes") == [made[4], made[3], made[2], made[0]]
        assert await ids("/v2/sandboxes?order=asc&state=running%2Cpaused") == [
            made[0],
            made[2],
            made[3],
            made[4],
        ]
        assert await ids("/v2/sandboxes?state=paused") == [made[0]]
        assert await ids("/v2/sandboxes?metadata=even%3DTrue") == [made[4], made[2], made[0]]
        assert await ids("/sandboxes?metadata=even%3DTrue") == [made[4], made[2]], "v1 lists the running"
        first = await api.ask("GET", "/v2/sandboxes?limit=3&state=running")
        assert first.headers["x-total-running"] == "3"
        assert "x-next-token" not in first.headers, "three there are"
        first = await api.ask("GET", "/v2/sandboxes?limit=3")
        token = first.headers["x-next-token"]
        assert await ids(f"/v2/sandboxes?limit=3&nextToken={token}") == [made[0]]
        assert (await api.refused("GET", f"/v2/sandboxes?order=asc&nextToken={token}")).status == 400
        assert "x-total-running" not in (await api.ask("GET", "/v2/sandboxes?state=paused")).headers
        assert await ids("/v2/sandboxes?template=base&startedAfter=2000-01-01T00:00:00Z") != []
        assert await ids("/v2/sandboxes?startedAfter=2999-01-01T00:00:00Z") == []

    with_api(test)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=",
        "limit=-1",
        "limit=%D9%A1",
        "order=up",
        "state=gone",
        "metadata=x",
        "nextToken=x",
        "startedAfter=x",
        "template=base%3Atag",
    ],
)
def test_a_bad_list_parameter_is_named(query: str) -> None:
    async def test(api: Api) -> None:
        refusal = await api.refused("GET", f"/v2/sandboxes?{query}")
        assert refusal.status == 400
        assert query.partition("=")[0] in refusal.message

    with_api(test)


def test_metrics_are_measured_when_asked_for() -> None:
    async def test(api: Api) -> None:
        one, other, paused = [await api.create() for _ in range(3)]
        await api.ask("POST", f"/sandboxes/{paused}/pause")
        [metric] = await api.json("GET", f"/sandboxes/{one}/metrics")
        assert (metric["memUsed"], metric["memCache"]) == (2000, 200)
        assert (metric["diskUsed"], metric["diskTotal"]) == (300, 4000)
        assert metric["cpuUsedPct"] > 0
        assert await api.json("GET", f"/sandboxes/{one}/metrics?start=0&end=1") == []
        assert await api.json("GET", f"/sandboxes/{paused}/metrics") == []
        many = await api.json("GET", f"/sandboxes/metrics?sandbox_ids={one},{other},{paused},iunknown")
        assert set(many["sandboxes"]) == {one, other}
        assert (await api.refused("GET", "/sandboxes/metrics")).status == 400
        too_many = ",".join(f"i{number}" for number in range(101))
        assert (await api.refused("GET", f"/sandboxes/metrics?sandbox_ids={too_many}")).status == 400

    with_api(test)


def test_logs_tell_what_happened_in_either_order() -> None:
    async def test(api: Api) -> None:
        name = await api.create()
        await api.ask("POST", f"/sandboxes/{name}/pause")
        await api.ask("POST", f"/sandboxes/{name}/resume")
        old = await api.json("GET", f"/sandboxes/{name}/logs")
        assert [entry["line"].split()[1].rstrip(":") for entry in old["logs"]] == [
            "created",
            "paused",
            "resumed",
        ]
        assert len(old["logEntries"]) == 3
        assert len((await api.json("GET", f"/sandboxes/{name}/logs?limit=2"))["logs"]) == 2
        new = await api.json("GET", f"/v2/sandboxes/{name}/logs")
        assert [entry["message"].split()[1].rstrip(":") for entry in new["logs"]] == [
            "resumed",
            "paused",
            "created",
        ]
        found = await api.json("GET", f"/v2/sandboxes/{name}/logs?direction=forward&search=paused&level=info")
        assert len(found["logs"]) == 1
        assert (await api.json("GET", f"/v2/sandboxes/{name}/logs?level=error"))["logs"] == []
        assert (await api.json("GET", f"/v2/sandboxes/{name}/logs?cursor=1"))["logs"] == []
        assert (
            len((await api.json("GET", f"/v2/sandboxes/{name}/logs?cursor=1&direction=forward"))["logs"]) == 3
        )
        for query in ("direction=up", "level=loud", "limit=1001", "search=" + "x" * 257):
            assert (await api.refused("GET", f"/v2/sandboxes/{name}/logs?{query}")).status == 400

    with_api(test)


def test_a_box_that_cannot_be_made_is_told_without_the_inside() -> None:
    async def test(api: Api) -> None:
        api.backend.failure = OSError(28, "No space left on device", "/secret/place")
        refusal = await api.refused("POST", "/v2/sandboxes", {"templateID": "base"})
        assert refusal.status == 503
        assert "No space left on device" in refusal.message
        assert "/secret/place" not in refusal.message

    with_api(test)


def test_who_hangs_up_during_a_create_leaves_no_sandbox() -> None:
    """G22: nothing is left of a create whose client went away."""

    async def test(api: Api) -> None:
        api.backend.may_create.clear()
        asking = asyncio.create_task(api.create())
        await asyncio.sleep(0.01)
        asking.cancel()
        api.backend.may_create.set()
        await until(lambda: len(api.registry) == 0)

    with_api(test)
