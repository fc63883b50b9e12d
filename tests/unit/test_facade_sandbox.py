"""The life of a sandbox, against a service that does what a test says."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote, unquote_plus

import pytest

from sandbox_sync import (
    AuthenticationException,
    CommandResult,
    ConnectionException,
    InvalidArgumentException,
    PtySize,
    RateLimitException,
    Sandbox,
    SandboxException,
    SandboxNotFoundException,
    SandboxQuery,
    SandboxState,
    SandboxUnreachableException,
    TemplateException,
)
from tests.unit.facade_service import CREATED, ended, output, playing, running, sandbox, started

DETAIL = {
    **CREATED,
    "alias": "base-name",
    "startedAt": "2026-11-23T10:00:00.5Z",
    "endAt": "2026-11-23T10:05:00Z",
    "state": "running",
    "cpuCount": 2,
    "memoryMB": 512,
    "diskSizeMB": 4096,
    "metadata": {"a": "b"},
    "lifecycle": {"autoResume": False, "onTimeout": "kill"},
    "network": {"allowPublicTraffic": True, "allowOut": ["example.com"]},
    "volumeMounts": [{"name": "data", "path": "/data"}],
    "somethingNew": {"x": 1},
}


def test_create_sends_what_was_given_and_nothing_else() -> None:
    with running() as (service, options):
        Sandbox.create(**options)
        Sandbox.create("py", 60, {"m": "1"}, {"E": "2"}, **options, headers={"X-Extra": "yes"})
        plain, full = service.requests("POST")
        assert plain.body == {"templateID": "base", "metadata": {}, "envVars": {}}
        assert full.body == {"templateID": "py", "timeout": 60, "metadata": {"m": "1"}, "envVars": {"E": "2"}}
        assert full.headers["x-api-key"] == "key"
        assert full.headers["x-extra"] == "yes"


def test_documented_arguments_may_stand_in_their_documented_order() -> None:
    """And where newer programs have another one in a place, theirs is understood, too."""
    with running() as (service, more):
        key, where = more.pop("api_key"), {"api_url": more["api_url"]}
        service.answer("POST", "/v2/sandboxes/isandbox/connect", (200, CREATED))
        service.answer("POST", "/sandboxes/isandbox/timeout", (204, None))
        service.answer("GET", "/sandboxes/isandbox", (200, DETAIL))
        service.answer("GET", "/v2/sandboxes", (200, []))
        query = SandboxQuery(template="py")
        Sandbox.create("py", 60, {}, {}, key, "e2b.app", False, 5, None, True, **more)
        Sandbox.connect("isandbox", key, "e2b.app", False, None, **more)
        Sandbox.kill("isandbox", key, "e2b.app", False, 5, None, **where)
        Sandbox.set_timeout("isandbox", 60, key, "e2b.app", False, 5, None, **where)
        Sandbox.get_info("isandbox", key, "e2b.app", False, 5, {"X-Extra": "1"}, None, **where)
        list(Sandbox.list(key, query, "e2b.app", False, 5, {"X-Extra": "1"}, None, **where))
        assert len(service.asked) == 6
        assert {asked.headers["x-api-key"] for asked in service.asked} == {key}
        assert [asked.headers.get("x-extra") for asked in service.asked] == [None] * 4 + ["1"] * 2


def test_newer_arguments_in_the_place_of_the_api_key_are_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running() as (service, more):
        monkeypatch.setenv("E2B_API_KEY", more.pop("api_key"))
        service.answer("POST", "/v2/sandboxes/isandbox/connect", (200, CREATED))
        service.answer("GET", "/v2/sandboxes", (200, []))
        Sandbox.create("py", 60, {}, {}, True, **more)
        Sandbox.connect("isandbox", 90, **more)
        list(Sandbox.list(SandboxQuery(template="py"), **more))
        created, connected, listed_ = service.asked
        assert created.body["timeout"] == 60
        assert connected.body == {"timeout": 90}
        assert listed_.query["template"] == "py"
        assert {asked.headers["x-api-key"] for asked in service.asked} == {"key"}


def test_a_subclass_has_its_own_template_and_makes_its_own_kind() -> None:
    class Interpreter(Sandbox):
        default_template = "interpreter"

    with running() as (service, options):
        service.answer("POST", "/v2/sandboxes/isandbox/connect", (200, CREATED))
        assert type(Interpreter.create(**options)) is Interpreter
        assert type(Interpreter.connect("isandbox", **options)) is Interpreter
        assert service.asked[0].body["templateID"] == "interpreter"


def test_each_creation_has_a_name_that_repetitions_keep() -> None:
    """G21: one Idempotency-Key per creation, the same on every attempt."""
    with running() as (service, options):
        service.answer("POST", "/v2/sandboxes", (504, {"code": 504, "message": "slow"}), (201, CREATED))
        Sandbox.create(**options)
        Sandbox.create(**options)
        Sandbox.create(**options, idempotency_key="mine-1")
        keys = [asked.headers["idempotency-key"] for asked in service.requests("POST")]
        assert len(keys) == 4
        assert keys[0] == keys[1]
        assert len(set(keys)) == 3
        assert keys[3] == "mine-1"


@pytest.mark.parametrize("key", ["", "Upper", "a b", "x" * 256])
def test_a_name_that_cannot_be_one_is_refused(key: str) -> None:
    with running() as (service, options):
        with pytest.raises(InvalidArgumentException, match="idempotency_key"):
            Sandbox.create(**options, idempotency_key=key)
        assert service.asked == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"timeout": -1}, "timeout"),
        ({"timeout": "long"}, "timeout"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"envs": {"a": None}}, "envVars"),
        ({"request_timeout": -1}, "request_timeout"),
        ({"template": 7}, "templateID"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], named: str) -> None:
    with running() as (service, options):
        with pytest.raises(InvalidArgumentException, match=named):
            Sandbox.create(**options, **arguments)
        assert service.asked == []


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        Sandbox.create(api_key="k", no_such_option=1)  # type: ignore[call-arg]


def test_a_sandbox_that_is_of_no_use_is_not_left() -> None:
    """G22: when something after the POST fails, the sandbox is killed before the error leaves."""
    with running() as (service, options):
        service.answer("POST", "/v2/sandboxes", (201, {**CREATED, "envdVersion": "0.0.9"}))
        with pytest.raises(TemplateException, match="too old"):
            Sandbox.create(**options)
        assert [asked.path for asked in service.requests("DELETE")] == ["/sandboxes/isandbox"]


@pytest.mark.parametrize("error", [RuntimeError("in a subclass"), KeyboardInterrupt()])
def test_not_even_when_a_subclass_fails_or_ctrl_c_comes(error: BaseException) -> None:
    """G22."""

    class Failing(Sandbox):
        def __init__(self, *arguments: Any) -> None:
            raise error

    with running() as (service, options):
        with pytest.raises(type(error)):
            Failing.create(**options)
        assert len(service.requests("DELETE")) == 1


def test_cleaning_up_takes_a_bounded_time_and_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """G22: the kill is time-boxed."""
    monkeypatch.setattr("sandbox_sync.lifecycle.CLEAN_UP_SECONDS", 0.5)
    with running() as (service, options):
        service.answer("POST", "/v2/sandboxes", (201, {**CREATED, "envdVersion": "0.0.9"}))
        service.answer("DELETE", "/sandboxes/isandbox", (503, {"code": 503, "message": "busy"}))
        before = time.monotonic()
        with pytest.raises(TemplateException), caplog.at_level(logging.WARNING):
            Sandbox.create(**options)
        assert time.monotonic() - before < 3
        assert "isandbox was not killed" in caplog.text


def test_a_block_kills_its_sandbox_and_lets_the_users_error_out(caplog: pytest.LogCaptureFixture) -> None:
    with running() as (service, options):
        with Sandbox.create(**options):
            pass
        assert len(service.requests("DELETE")) == 1
        with pytest.raises(ZeroDivisionError), Sandbox.create(**options):
            raise ZeroDivisionError
        assert len(service.requests("DELETE")) == 2
        service.answer("DELETE", "/sandboxes/isandbox", (500, {"code": 500, "message": "no"}))
        with pytest.raises(ZeroDivisionError) as caught, Sandbox.create(**options):
            raise ZeroDivisionError
        assert caught.value.__context__ is None
        with pytest.raises(SandboxException), Sandbox.create(**options):
            pass


def test_kill_says_what_is_known() -> None:
    """G59: True or False only on evidence, else an error."""
    with sandbox() as (service, sb):
        options: dict[str, Any] = {"api_key": "key", "api_url": sb._config.api_url}
        gone = (404, {"code": 404, "message": "no such sandbox"})
        assert sb.kill() is True
        assert Sandbox.kill("isandbox", **options) is True
        assert Sandbox.kill("iother", **options) is False
        service.answer("DELETE", "/sandboxes/isandbox", (502, {"code": 502, "message": "edge"}), gone)
        assert sb.kill() is True
        assert sb.kill() is False
        service.answer("DELETE", "/sandboxes/isandbox", (500, {"code": 500, "message": "no"}))
        with pytest.raises(SandboxException):
            sb.kill()


def test_connect_asks_for_what_was_given() -> None:
    with running() as (service, options):
        service.answer("POST", "/v2/sandboxes/isandbox/connect", (200, CREATED), (201, CREATED))
        sb = Sandbox.connect("isandbox", **options)
        assert sb.sandbox_id == "isandbox"
        assert sb.connect(timeout=120) is sb
        assert [asked.body for asked in service.asked] == [{}, {"timeout": 120}]
        with pytest.raises(SandboxNotFoundException) as caught:
            Sandbox.connect("iother", **options)
        assert caught.value.sandbox_id == "iother"


def test_set_timeout_in_both_forms() -> None:
    with sandbox() as (service, sb):
        service.answer("POST", "/sandboxes/isandbox/timeout", (204, None))
        options: dict[str, Any] = {"api_key": "key", "api_url": sb._config.api_url}
        sb.set_timeout(30)
        Sandbox.set_timeout("isandbox", 40, **options)
        assert [asked.body for asked in service.requests("POST")[1:]] == [{"timeout": 30}, {"timeout": 40}]
        with pytest.raises(InvalidArgumentException, match="timeout"):
            sb.set_timeout(-1)
        with pytest.raises(SandboxNotFoundException):
            Sandbox.set_timeout("iother", 1, **options)


def test_info_has_the_documented_names() -> None:
    with sandbox() as (service, sb):
        service.answer("GET", "/sandboxes/isandbox", (200, DETAIL))
        info = sb.get_info()
        assert Sandbox.get_info("isandbox", api_key="key", api_url=sb._config.api_url) == info
        assert info.sandbox_id == "isandbox"
        assert info.template_id == "base"
        assert info.name == "base-name"
        assert info.metadata == {"a": "b"}
        assert info.started_at == datetime(2026, 11, 23, 10, 0, 0, 500_000, timezone.utc)
        assert info.end_at == datetime(2026, 11, 23, 10, 5, tzinfo=timezone.utc)
        assert info.state is SandboxState.RUNNING
        assert (info.cpu_count, info.memory_mb, info.envd_version) == (2, 512, "0.6.13")
        assert info.lifecycle == {"auto_resume": False, "on_timeout": "kill"}
        assert info.network is not None
        assert info.network["allow_out"] == ["example.com"]
        assert info.volume_mounts == [{"name": "data", "path": "/data"}]
        assert "token" not in repr(info)


@pytest.mark.parametrize("value", [timedelta(seconds=5), float("nan"), -1, "soon"])
def test_a_time_that_is_none_is_refused_alike_everywhere(value: Any) -> None:
    """G57: no call takes for a number of seconds what another refuses; None and 0 mean the same in all."""
    with sandbox() as (service, sb):
        options: dict[str, Any] = {"api_key": "key", "api_url": sb.connection_config.api_url}
        lifetimes: list[Callable[[], object]] = [
            lambda: Sandbox.create(timeout=value, **options),
            lambda: Sandbox.connect("isandbox", timeout=value, **options),
            lambda: Sandbox.set_timeout("isandbox", value, **options),
            lambda: sb.connect(value),
            lambda: sb.set_timeout(value),
            lambda: sb.fork(value),
        ]
        requests: list[Callable[[], object]] = [
            lambda: Sandbox.create(request_timeout=value, **options),
            lambda: Sandbox.connect("isandbox", request_timeout=value, **options),
            lambda: Sandbox.kill("isandbox", request_timeout=value, **options),
            lambda: Sandbox.set_timeout("isandbox", 5, request_timeout=value, **options),
            lambda: Sandbox.get_info("isandbox", request_timeout=value, **options),
            lambda: Sandbox.pause("isandbox", request_timeout=value, **options),
            lambda: Sandbox.get_metrics("isandbox", request_timeout=value, **options),
            lambda: list(Sandbox.list(request_timeout=value, **options)),
            lambda: sb.connect(request_timeout=value),
            lambda: sb.kill(request_timeout=value),
            lambda: sb.set_timeout(5, request_timeout=value),
            lambda: sb.get_info(request_timeout=value),
            lambda: sb.pause(request_timeout=value),
            lambda: sb.get_metrics(request_timeout=value),
            lambda: sb.is_running(request_timeout=value),
            lambda: sb.commands.run("x", request_timeout=value),
            lambda: sb.commands.list(request_timeout=value),
            lambda: sb.files.list(".", request_timeout=value),
            lambda: sb.files.read("x", request_timeout=value),
            lambda: sb.files.write("x", "y", request_timeout=value),
        ]
        runs: list[Callable[[], object]] = [
            lambda: sb.commands.run("x", timeout=value),
            lambda: sb.commands.run("x", background=True, timeout=value),
            lambda: sb.commands.connect(7, timeout=value),
            lambda: sb.pty.create(PtySize(24, 80), timeout=value),
            lambda: sb.files.watch_dir(".", timeout=value),
        ]
        for call in (*lifetimes, *requests, *runs):
            with pytest.raises(InvalidArgumentException, match="timeout"):
                call()
        assert len(service.asked) == 1
        assert service.starts == []


@pytest.mark.parametrize("value", [None, 0])
def test_no_time_and_none_given_are_accepted_alike_everywhere(value: Any) -> None:
    """G57: 0 is no limit and None is the default, in every call."""
    with sandbox() as (service, sb):
        service.answer("GET", "/sandboxes/isandbox", (200, DETAIL))
        service.answer("POST", "/sandboxes/isandbox/timeout", (204, None))
        service.answer("POST", "/v2/sandboxes/isandbox/connect", (200, CREATED))
        options: dict[str, Any] = {"api_key": "key", "api_url": sb.connection_config.api_url}
        Sandbox.create(timeout=value, request_timeout=value, **options)
        Sandbox.connect("isandbox", timeout=value, request_timeout=value, **options)
        sb.connect(value, request_timeout=value)
        sb.set_timeout(0, request_timeout=value)
        assert sb.get_info(request_timeout=value).sandbox_id == "isandbox"
        assert sb.is_running(value)
        assert sb.commands.run("x", timeout=value, request_timeout=value).exit_code == 0
        assert sb.commands.run("x", background=True, timeout=value, request_timeout=value).wait(value)
        sent = [asked.body.get("timeout") for asked in service.requests("POST")[1:]]
        assert sent == [value, value, value, 0]


def test_a_port_that_is_not_open_is_not_a_dead_sandbox() -> None:
    """G28: the service says that the sandbox runs; that nothing listens inside is another matter."""
    with sandbox() as (service, sb):
        service.health = 502, {"message": "The sandbox is running but port is not open", "code": 502}
        assert sb.is_running() is True
        service.health = 502, {"message": "The sandbox was not found", "code": 502}
        assert sb.is_running() is False
        service.health = 502, {"message": "no upstream", "code": 502}
        with pytest.raises(SandboxUnreachableException):
            sb.is_running()
        service.health = 401, {"message": "who are you", "code": 401}
        with pytest.raises(AuthenticationException):
            sb.is_running()


def test_a_service_that_is_gone_says_nothing_of_the_sandbox() -> None:
    """G28, G59: neither True nor False."""
    with sandbox() as (_, sb):
        pass
    for call in (sb.is_running, sb.kill, sb.pause, sb.get_info, lambda: sb.set_timeout(5)):
        with pytest.raises((ConnectionException, SandboxUnreachableException)):
            call()


def test_a_state_from_the_future_is_handed_on() -> None:
    """G54: an unknown enum value is no error."""
    with sandbox() as (service, sb):
        service.answer("GET", "/sandboxes/isandbox", (200, {**DETAIL, "state": "hibernating", "alias": None}))
        assert sb.get_info().state == "hibernating"


@pytest.mark.parametrize("body", [None, [], "x", {"sandboxID": None}])
def test_an_answer_that_makes_no_sense_is_an_error_of_ours(body: Any) -> None:
    with running() as (service, options):
        service.answer("POST", "/v2/sandboxes", (201, body))
        with pytest.raises(SandboxException, match="cannot be understood"):
            Sandbox.create(**options)


def test_success_without_a_sandbox_is_an_error() -> None:
    with running() as (service, options):
        service.answer("POST", "/v2/sandboxes", (204, None))
        with pytest.raises(SandboxException, match="without the created sandbox"):
            Sandbox.create(**options)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationException), (429, RateLimitException), (400, InvalidArgumentException)],
)
def test_refusals_have_the_documented_class(status: int, kind: type[SandboxException]) -> None:
    with running() as (service, options):
        service.answer("POST", "/v2/sandboxes", (status, {"code": status, "message": "no"}))
        with pytest.raises(kind):
            Sandbox.create(**options, retries=0)


def test_nobody_there_is_a_connection_error() -> None:
    """G28: not an error of the library underneath."""
    with pytest.raises(ConnectionException):
        Sandbox.create(api_key="key", api_url="http://127.0.0.1:1", request_timeout=0.2)


def listed(number: int, **more: Any) -> dict[str, Any]:
    return {**{key: DETAIL[key] for key in DETAIL if key != "network"}, "sandboxID": f"i{number}", **more}


def test_listing_goes_through_the_pages() -> None:
    with running() as (service, options):
        service.answer(
            "GET",
            "/v2/sandboxes",
            (200, [listed(1), listed(2)], {"x-next-token": "more"}),
            (200, [listed(3, state="paused")]),
        )
        found = Sandbox.list(**options, limit=2, order="asc")
        assert service.asked == []
        assert [info.sandbox_id for info in found] == ["i1", "i2", "i3"]
        assert found[2].state is SandboxState.PAUSED
        first, second = service.requests("GET")
        assert first.query == {"state": "running", "limit": "2", "order": "asc"}
        assert second.query == {"state": "running", "limit": "2", "order": "asc", "nextToken": "more"}


def test_a_query_narrows_the_listing() -> None:
    with running() as (service, options):
        service.answer("GET", "/v2/sandboxes", (200, []))
        metadata = {"k y": "v&1=", "user": "\u00e4/b+c"}
        query = SandboxQuery(
            metadata=metadata,
            state=[SandboxState.RUNNING, SandboxState.PAUSED],
            started_after=datetime(2026, 1, 2, tzinfo=timezone.utc),
            template="py",
        )
        assert list(Sandbox.list(query=query, **options)) == []
        (asked,) = service.asked
        assert asked.query["state"] == "running,paused"
        assert asked.query["startedAfter"] == "2026-01-02T00:00:00+00:00"
        assert asked.query["template"] == "py"
        # What the service does: decode the whole once more, take it apart, decode the parts.
        pairs = [pair.split("=") for pair in unquote_plus(asked.query["metadata"]).split("&")]
        assert {unquote(key): unquote(value) for key, value in pairs} == metadata


@pytest.mark.parametrize(
    "query",
    [
        SandboxQuery(state=["asleep"]),  # type: ignore[list-item]
        SandboxQuery(metadata={"a": 1}),  # type: ignore[dict-item]
        SandboxQuery(started_after=datetime(2026, 1, 2)),
    ],
)
def test_a_query_that_cannot_be_is_refused(query: SandboxQuery) -> None:
    with running() as (service, options):
        with pytest.raises(InvalidArgumentException):
            list(Sandbox.list(query=query, **options))
        assert service.asked == []


def test_no_secret_is_in_a_repr() -> None:
    with sandbox() as (_, sb):
        for thing in (sb, sb.files, sb.commands, sb._config, sb._inside):
            assert "token-of-the-sandbox" not in repr(thing)
            assert "'key'" not in repr(thing)
        assert sb.sandbox_id in repr(sb)


def _run_there(pickled: bytes) -> CommandResult:
    copy = pickle.loads(pickled)
    assert isinstance(copy, Sandbox)
    return copy.commands.run("x")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_sandbox_pickles_into_other_processes(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """G61: id and configuration travel, the key does not: it is the environment's there."""
    with sandbox() as (service, sb):
        service.answer("GET", "/sandboxes/isandbox", (200, DETAIL))
        service.start = playing(started(), output("stdout", b"from afar"), ended())
        pickled = pickle.dumps(sb)
        assert b"token-of-the-sandbox" not in pickled
        monkeypatch.setenv("E2B_API_KEY", "key-of-the-environment")
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_run_there, (pickled,)).stdout == "from afar"
        assert service.requests("GET")[0].headers["x-api-key"] == "key-of-the-environment"
        ((_, context),) = service.starts
        assert context.headers["x-access-token"] == "token-of-the-sandbox"


def test_a_copy_asks_only_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2B_API_KEY", "key")
    with sandbox() as (service, sb):
        copy = pickle.loads(pickle.dumps(sb))
        assert len(service.asked) == 1
        assert copy.is_running() is False  # the service does not know it, so it asked
        service.answer("GET", "/sandboxes/isandbox", (200, DETAIL))
        assert copy.is_running() is True
        assert copy.files is copy.files


def test_debug_mode_makes_no_control_plane_requests() -> None:
    with running() as (service, options):
        sb = Sandbox.create(**options, debug=True)
        assert sb.sandbox_id == "debug_sandbox_id"
        assert Sandbox.connect("x", **options, debug=True).sandbox_id == "x"
        sb.set_timeout(5)
        assert sb.kill() is True
        assert service.asked == []
        assert sb.commands.run("x").exit_code == 0
