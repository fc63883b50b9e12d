"""The life of real sandboxes."""

from __future__ import annotations

import copy
import os
import pickle
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from uuid import uuid4

import pytest

from sandbox_sync import (
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxState,
)

UNKNOWN = "i0000000000000000000"


@pytest.mark.documented("Sandbox.create", "Sandbox.is_running", "Sandbox.kill", "Sandbox.kill[by id]")
def test_a_sandbox_lives_until_it_is_killed(server_env: dict[str, str], transport: str) -> None:
    sandbox = Sandbox.create(timeout=60)
    assert sandbox.is_running()
    assert sandbox.commands.run("echo hello").stdout == "hello\n"
    assert sandbox.kill() is True
    assert sandbox.is_running() is False
    assert sandbox.kill() is False
    assert Sandbox.kill(sandbox.sandbox_id) is False
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()
    with pytest.raises(SandboxNotRunningException) as caught:
        sandbox.commands.run("true")
    assert caught.value.sandbox_state == "gone"
    with pytest.raises(SandboxNotRunningException):
        sandbox.files.read("x")


def test_a_block_ends_its_sandbox(server_env: dict[str, str], transport: str) -> None:
    sandbox = Sandbox.create()
    with pytest.raises(ZeroDivisionError), sandbox:
        raise ZeroDivisionError
    assert not sandbox.is_running()


@pytest.mark.documented("Sandbox.create", "Sandbox.get_info", "Sandbox.get_info[by id]")
def test_what_create_was_given_is_there(server_env: dict[str, str], transport: str) -> None:
    before = datetime.now(timezone.utc)
    with Sandbox.create(
        "base", timeout=120, metadata={"purpose": "test"}, envs={"GREETING": "hi there"}
    ) as sandbox:
        info = sandbox.get_info()
        assert info.sandbox_id == sandbox.sandbox_id
        assert info.template_id or info.name
        assert info.metadata == {"purpose": "test"}
        assert info.state is SandboxState.RUNNING
        assert before - timedelta(seconds=1) <= info.started_at <= datetime.now(timezone.utc)
        assert timedelta(seconds=115) < info.end_at - info.started_at <= timedelta(seconds=125)
        assert Sandbox.get_info(sandbox.sandbox_id) == info
        assert info.name == "base"
        assert info.cpu_count == int(sandbox.commands.run("nproc").stdout)
        assert info.memory_mb > 100
        assert re.fullmatch(r"\d+\.\d+\.\d+", info.envd_version)
        assert info.sandbox_domain == sandbox.sandbox_domain
        assert info.allow_internet_access is False
        assert info.network == {"allow_public_traffic": True}
        assert info.lifecycle == {"on_timeout": "kill", "auto_resume": False}
        assert info.volume_mounts == []
        assert info.envd_unresponsive_at_pause is None
        assert sandbox.connection_config.request_timeout == 60
        assert sandbox.commands.run('echo "$GREETING"').stdout == "hi there\n"


def test_creating_again_with_the_same_key_gives_the_same_sandbox(
    server_env: dict[str, str], transport: str
) -> None:
    """G21: a repeated request leaves one sandbox."""
    key = uuid4().hex
    with Sandbox.create(idempotency_key=key) as first:
        second = Sandbox.create(idempotency_key=key)
        assert second.sandbox_id == first.sandbox_id
        assert second.commands.run("echo same").stdout == "same\n"


@pytest.mark.documented("Sandbox.connect")
def test_a_sandbox_can_be_found_again(sandbox: Sandbox) -> None:
    sandbox.files.write("note", "left by the first")
    again = Sandbox.connect(sandbox.sandbox_id)
    assert again.files.read("note") == "left by the first"
    assert again.connect() is again
    for twin in (pickle.loads(pickle.dumps(sandbox)), copy.copy(sandbox), copy.deepcopy(sandbox)):
        assert twin.sandbox_id == sandbox.sandbox_id
        assert twin.files.read("note") == "left by the first"


@pytest.mark.documented("Sandbox.connect")
def test_connecting_never_shortens_a_life(sandbox: Sandbox) -> None:
    end = sandbox.get_info().end_at
    sandbox.connect(timeout=1)
    assert sandbox.get_info().end_at == end
    Sandbox.connect(sandbox.sandbox_id, timeout=600)
    assert sandbox.get_info().end_at > end + timedelta(seconds=200)


@pytest.mark.documented("Sandbox.set_timeout", "Sandbox.set_timeout[by id]")
def test_a_life_can_be_made_longer_and_shorter(sandbox: Sandbox) -> None:
    sandbox.set_timeout(1000)
    assert sandbox.get_info().end_at > datetime.now(timezone.utc) + timedelta(seconds=900)
    Sandbox.set_timeout(sandbox.sandbox_id, 100)
    assert sandbox.get_info().end_at < datetime.now(timezone.utc) + timedelta(seconds=110)


@pytest.mark.documented("Sandbox.is_running")
def test_a_life_that_ended_is_told_as_such(server_env: dict[str, str], transport: str) -> None:
    """G5: it is the sandbox's lifetime that ended, and the error says so."""
    sandbox = Sandbox.create(timeout=60)
    handle = sandbox.commands.run("sleep 1000", background=True, timeout=0)
    sandbox.set_timeout(0)
    with pytest.raises(SandboxNotRunningException) as caught:
        handle.wait(timeout=20)
    assert caught.value.clock == "sandbox lifetime"
    assert not sandbox.is_running()


def test_killing_a_sandbox_frees_who_waits_for_its_commands(
    server_env: dict[str, str], transport: str
) -> None:
    sandbox = Sandbox.create()
    killer = threading.Timer(0.3, sandbox.kill)
    killer.start()
    with pytest.raises(SandboxNotRunningException):
        sandbox.commands.run("sleep 1000", timeout=0)
    killer.join()


@pytest.mark.documented("Sandbox.list")
def test_listing_finds_what_the_query_says(server_env: dict[str, str], transport: str) -> None:
    mark = {"mark": f"{uuid4().hex} & = \u00e4"}
    query = SandboxQuery(metadata=mark)
    assert not Sandbox.list(query=query)
    with (
        Sandbox.create(metadata=mark) as first,
        Sandbox.create(metadata=mark) as second,
        Sandbox.create(metadata={"mark": "another"}),
    ):
        found = Sandbox.list(query=query)
        assert [info.sandbox_id for info in found] == [second.sandbox_id, first.sandbox_id]
        assert len(found) == 2
        pages = Sandbox.list(query=query, limit=1, order="asc")
        assert [info.sandbox_id for info in pages.next_items()] == [first.sandbox_id]
        assert pages.has_next
        assert [info.sandbox_id for info in pages.next_items()] == [second.sandbox_id]
        assert pages.next_items() == []
        assert not pages.has_next
    assert len(Sandbox.list(query=query)) == 0


@pytest.mark.documented("Sandbox.connect", "Sandbox.get_info[by id]", "Sandbox.set_timeout[by id]")
@pytest.mark.parametrize("call", ["connect", "get_info", "set_timeout"])
def test_an_unknown_sandbox_is_not_found(server_env: dict[str, str], transport: str, call: str) -> None:
    arguments = (UNKNOWN, 10) if call == "set_timeout" else (UNKNOWN,)
    with pytest.raises(SandboxNotFoundException) as caught:
        getattr(Sandbox, call)(*arguments)
    assert isinstance(caught.value, NotFoundException)
    assert UNKNOWN in str(caught.value)


@pytest.mark.parametrize("sandbox_id", ["", "..", "a/b", "x\udc80"])
def test_what_cannot_be_an_id_is_refused(server_env: dict[str, str], transport: str, sandbox_id: str) -> None:
    for call in (Sandbox.connect, Sandbox.get_info, Sandbox.kill):
        with pytest.raises((InvalidArgumentException, NotFoundException)):
            assert call(sandbox_id)


def test_a_wrong_key_is_refused_everywhere(server_env: dict[str, str], transport: str) -> None:
    with Sandbox.create() as sandbox:
        for call in (
            lambda: Sandbox.create(api_key="e2b_wrong"),
            lambda: Sandbox.connect(sandbox.sandbox_id, api_key="e2b_wrong"),
            lambda: Sandbox.get_info(sandbox.sandbox_id, api_key="e2b_wrong"),
            lambda: Sandbox.kill(sandbox.sandbox_id, api_key="e2b_wrong"),
            lambda: list(Sandbox.list(api_key="e2b_wrong")),
        ):
            with pytest.raises(AuthenticationException) as caught:
                call()
            assert "e2b_wrong" not in str(caught.value)
        assert sandbox.is_running()


def test_no_key_is_said_before_anything_is_sent(
    server_env: dict[str, str], transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("E2B_API_KEY")
    with pytest.raises(AuthenticationException, match="E2B_API_KEY"):
        Sandbox.create()


def test_a_wrong_token_is_refused(sandbox: Sandbox, transport: str) -> None:
    copy = Sandbox.connect(sandbox.sandbox_id)
    envd = copy._open().envd
    envd._headers["x-access-token"] = "wrong"
    with pytest.raises(AuthenticationException):
        copy.commands.run("true")
    with pytest.raises(AuthenticationException):
        copy.files.list(".")
    with pytest.raises(AuthenticationException):
        copy.files.write("x", "y")


def test_an_unknown_template_is_refused(server_env: dict[str, str], transport: str) -> None:
    with pytest.raises(SandboxException) as caught:
        Sandbox.create("no-such-template")
    assert "no-such-template" in str(caught.value)


def test_many_sandboxes_at_once_do_not_mix(server_env: dict[str, str], transport: str) -> None:
    """G55: threads that create, run and kill at the same time all end, each with its own output."""

    def work(number: int) -> None:
        with Sandbox.create(envs={"NUMBER": str(number)}) as sandbox:
            assert sandbox.commands.run("echo $NUMBER > n; cat n").stdout == f"{number}\n"

    with ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(work, number) for number in range(24)]:
            one.result(90)


def test_a_fork_uses_the_sandbox_it_inherited(sandbox: Sandbox, transport: str) -> None:
    """G44: parent and children use one sandbox at once, and each gets its own answers."""
    assert sandbox.commands.run("echo warm").stdout == "warm\n"
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            try:
                for turn in range(10):
                    word = f"{number}-{turn}"
                    if sandbox.commands.run(f"echo {word}").stdout != f"{word}\n":
                        os._exit(1)
                os._exit(0)
            finally:
                os._exit(2)
        children.append(child)
    for turn in range(10):
        assert sandbox.commands.run(f"echo parent-{turn}").stdout == f"parent-{turn}\n"
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


def test_a_block_ends_soon_even_while_commands_run(server_env: dict[str, str], transport: str) -> None:
    before = time.monotonic()
    with Sandbox.create() as sandbox:
        sandbox.commands.run("sleep 1000", background=True)
        with pytest.raises(CommandExitException):
            sandbox.commands.run("exit 3")
    assert time.monotonic() - before < 10
