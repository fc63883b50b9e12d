"""The official `e2b` package, unmodified, against the embedded server: the blocking half.

Every test needs nothing but the environment variables that the server prints (G26: no account, no network).
"""

from __future__ import annotations

import io
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sandbox_local import LocalServer

e2b = pytest.importorskip("e2b")

pytestmark = pytest.mark.usefixtures("server_env")


@pytest.fixture(scope="module")
def sandbox(server: LocalServer) -> Iterator[Any]:
    """One sandbox for the tests that do not care whose it is, made with options in place of variables."""
    made = e2b.Sandbox.create(timeout=300, api_key=server.api_key, api_url=server.url, sandbox_url=server.url)
    yield made
    made.kill()


def test_the_life_of_a_sandbox() -> None:
    mark = uuid.uuid4().hex
    metadata = {"mark": mark, "a key": "a&b=c%"}
    sandbox = e2b.Sandbox.create(timeout=60, metadata=metadata, envs={"GREETING": "hello"})
    try:
        assert sandbox.is_running()
        assert sandbox.commands.run("echo $GREETING $E2B_SANDBOX $E2B_SANDBOX_ID").stdout.split() == [
            "hello",
            "true",
            sandbox.sandbox_id,
        ]
        info = sandbox.get_info()
        assert info.sandbox_id == sandbox.sandbox_id
        assert info.name == "base"
        assert info.metadata == metadata
        assert info.state == e2b.SandboxState.RUNNING
        assert 50 < (info.end_at - info.started_at).total_seconds() < 70
        sandbox.set_timeout(600)
        assert 590 < (sandbox.get_info().end_at - info.started_at).total_seconds() < 620
        again = e2b.Sandbox.connect(sandbox.sandbox_id)
        assert again.commands.run("echo $GREETING").stdout == "hello\n"
        assert again.get_info().end_at == sandbox.get_info().end_at, "connect does not shorten"
    finally:
        assert sandbox.kill() is True
    assert sandbox.kill() is False
    assert sandbox.is_running() is False
    with pytest.raises(e2b.SandboxNotFoundException):
        e2b.Sandbox.connect(sandbox.sandbox_id)
    with pytest.raises(e2b.SandboxNotFoundException):
        sandbox.set_timeout(60)
    with pytest.raises(e2b.SandboxNotRunningException):
        sandbox.commands.run("true")


def test_lists_find_sandboxes_by_metadata_and_state_page_by_page() -> None:
    mark = uuid.uuid4().hex
    made = [e2b.Sandbox.create(metadata={"mark": mark, "odd & =%": f"+{number}"}) for number in range(3)]
    try:
        made[0].pause()

        def ids(limit: int = 100, order: str | None = None, **query: object) -> list[str]:
            paginator = e2b.Sandbox.list(
                query=e2b.SandboxQuery(metadata=query.pop("metadata", {"mark": mark}), **query),
                limit=limit,
                **({"order": order} if order else {}),
            )
            found: list[str] = []
            while paginator.has_next:
                page = paginator.next_items()
                assert len(page) <= limit
                found += [item.sandbox_id for item in page]
            return found

        names = [sandbox.sandbox_id for sandbox in made]
        assert sorted(ids()) == sorted(names)
        assert sorted(ids(limit=1)) == sorted(names)
        assert ids(order="asc") == list(reversed(ids(order="desc")))
        assert ids(state=[e2b.SandboxState.PAUSED]) == names[:1]
        assert sorted(ids(state=[e2b.SandboxState.RUNNING])) == sorted(names[1:])
        assert ids(metadata={"mark": mark, "odd & =%": "+2"}) == names[2:]
        assert ids(metadata={"mark": "another"}) == []
    finally:
        for sandbox in made:
            sandbox.kill()


def test_pause_stops_and_connect_goes_on() -> None:
    sandbox = e2b.Sandbox.create()
    try:
        sandbox.files.write("/tmp/count", "")
        counting = sandbox.commands.run(
            "while sleep 0.02; do echo x >> /tmp/count; done", background=True, timeout=0
        )

        def until_it_counts_on() -> None:
            before = len(sandbox.files.read("/tmp/count"))
            deadline = time.monotonic() + 10
            while len(sandbox.files.read("/tmp/count")) == before:
                assert time.monotonic() < deadline, "its processes do not go on"

        until_it_counts_on()
        assert sandbox.pause() is True
        assert sandbox.get_info().state == e2b.SandboxState.PAUSED
        assert sandbox.pause() is False
        assert sandbox.is_running() is False
        sandbox.connect(timeout=120)
        assert counting.pid in [process.pid for process in sandbox.commands.list()]
        until_it_counts_on()
    finally:
        sandbox.kill()


def test_a_sandbox_ends_at_its_timeout() -> None:
    sandbox = e2b.Sandbox.create(timeout=1)
    deadline = time.monotonic() + 10
    while sandbox.is_running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not sandbox.is_running()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the last official release for it has no such option")
def test_an_idempotency_key_makes_one_sandbox() -> None:
    """G21: one key, one sandbox; other parameters under the same key are an error."""
    key = uuid.uuid4().hex
    one, other = [e2b.Sandbox.create(timeout=60, idempotency_key=key) for _ in range(2)]
    try:
        assert one.sandbox_id == other.sandbox_id
        with pytest.raises(e2b.SandboxException, match="Idempotency-Key"):
            e2b.Sandbox.create(timeout=61, idempotency_key=key)
    finally:
        one.kill()


def test_errors_of_create_are_the_documented_ones() -> None:
    with pytest.raises(e2b.AuthenticationException):
        e2b.Sandbox.create(api_key="e2b_" + "0" * 40)
    with pytest.raises(Exception, match="no-such-template"):
        e2b.Sandbox.create("no-such-template")
    with pytest.raises(e2b.SandboxException, match="501"):
        e2b.Sandbox.create(network={"deny_out": ["0.0.0.0/0"]})


def test_commands_give_output_and_exit_code(sandbox: Any) -> None:
    result = sandbox.commands.run("echo out; echo err >&2")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 0)
    with pytest.raises(e2b.CommandExitException) as failure:
        sandbox.commands.run("echo so far; exit 3")
    assert (failure.value.exit_code, failure.value.stdout) == (3, "so far\n")
    heard: list[str] = []
    sandbox.commands.run("printf 'h\\303\\251llo'; printf ' there'", on_stdout=heard.append)
    assert "".join(heard) == "h\u00e9llo there"


def test_commands_run_as_user_and_as_root_where_they_are_told(sandbox: Any) -> None:
    run = sandbox.commands.run
    assert run("whoami; pwd").stdout.split() == ["user", "/home/user"]
    assert run("whoami", user="root").stdout == "root\n"
    assert run("pwd; echo $MINE", cwd="/tmp", envs={"MINE": "yes"}).stdout.split() == ["/tmp", "yes"]
    assert run("sudo -n id -u").stdout == "0\n"
    with pytest.raises(e2b.InvalidArgumentException, match="/no/such"):
        run("true", cwd="/no/such")


def test_a_command_is_ended_at_its_timeout(sandbox: Any) -> None:
    started = time.monotonic()
    with pytest.raises(e2b.TimeoutException):
        sandbox.commands.run("sleep 30", timeout=1)
    assert 0.9 < time.monotonic() - started < 5


def test_background_commands_are_listed_fed_and_killed(sandbox: Any) -> None:
    commands = sandbox.commands
    handle = commands.run("while read line; do echo got $line; done", background=True, stdin=True, timeout=0)
    assert handle.pid in [process.pid for process in commands.list()]
    commands.send_stdin(handle.pid, "one\n")
    assert next(iter(handle))[0] == "got one\n"
    again = commands.connect(handle.pid, timeout=0)
    commands.send_stdin(handle.pid, "two\n")
    assert next(iter(again))[0] == "got two\n"
    commands.close_stdin(handle.pid)
    assert again.wait().exit_code == 0
    sleeping = commands.run("sleep 100", background=True, timeout=0)
    assert commands.kill(sleeping.pid) is True
    with pytest.raises(e2b.CommandExitException):
        sleeping.wait()
    assert commands.kill(sleeping.pid) is False
    with pytest.raises(e2b.NotFoundException):
        commands.connect(999999)


def test_a_terminal_is_one(sandbox: Any) -> None:
    pty = sandbox.pty
    heard: list[bytes] = []
    terminal = pty.create(size=e2b.PtySize(rows=11, cols=77), timeout=30)
    pty.resize(terminal.pid, e2b.PtySize(rows=22, cols=88))
    pty.send_stdin(terminal.pid, b"stty size; tty; exit\n")
    assert terminal.wait(on_pty=heard.append).exit_code == 0
    output = b"".join(heard)
    assert b"22 88" in output
    assert b"/dev/pts/" in output


def test_files_are_written_read_and_found(sandbox: Any) -> None:
    files = sandbox.files
    info = files.write("deep/down/text.txt", "h\u00e9llo")
    assert (info.name, info.path) == ("text.txt", "/home/user/deep/down/text.txt")
    assert files.read("deep/down/text.txt") == "h\u00e9llo"
    assert bytes(files.read("/home/user/deep/down/text.txt", format="bytes")) == "h\u00e9llo".encode()
    blob = bytes(range(256)) * 5000
    files.write("blob", blob)
    with files.read("blob", format="stream") as stream:
        assert b"".join(stream) == blob
    files.write("streamed", io.BytesIO(blob))
    assert bytes(files.read("streamed", format="bytes")) == blob
    written = files.write_files([{"path": f"many/{n}", "data": str(n)} for n in range(5)])
    assert [entry.name for entry in written] == list("01234")
    assert [entry.name for entry in files.list("many")] == list("01234")
    assert files.exists("many/3") is True
    assert files.exists("many/9") is False
    assert files.rename("many/3", "many/nine").name == "nine"
    assert files.exists("many/3") is False
    files.remove("many")
    assert files.exists("many") is False
    assert files.make_dir("fresh") is True
    assert files.make_dir("fresh") is False
    entry = files.get_info("blob")
    assert (entry.type, entry.size, entry.owner) == (e2b.FileType.FILE, len(blob), "user")
    with pytest.raises(e2b.FileNotFoundException):
        files.read("nothing")
    with pytest.raises(e2b.InvalidArgumentException):
        files.read("fresh")


def test_a_directory_is_watched(sandbox: Any) -> None:
    files = sandbox.files
    files.make_dir("watched")
    handle = files.watch_dir("watched")
    files.write("watched/new.txt", "x")
    seen: list[tuple[str, object]] = []
    deadline = time.monotonic() + 10
    while ("new.txt", e2b.FilesystemEventType.CREATE) not in seen and time.monotonic() < deadline:
        seen += [(event.name, event.type) for event in handle.get_new_events()]
    assert ("new.txt", e2b.FilesystemEventType.CREATE) in seen
    handle.stop()


def test_signed_urls_open_a_file_without_a_token(sandbox: Any) -> None:
    sandbox.files.write("signed file.txt", "content")
    url = sandbox.download_url("signed file.txt", use_signature_expiration=60)
    where = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}
    assert requests.get(url, headers=where, timeout=30).text == "content"
    assert requests.get(url.replace("v1_", "v1_x"), headers=where, timeout=30).status_code == 401


def test_a_port_of_the_sandbox_is_reached_by_its_host_name(sandbox: Any, server: LocalServer) -> None:
    sandbox.files.write("site/index.html", "it works")
    serving = sandbox.commands.run("python3 -m http.server 8080 --directory site", background=True, timeout=0)
    host = sandbox.get_host(8080)
    assert host == f"8080-{sandbox.sandbox_id}.localhost:{server.url.rpartition(':')[2]}"
    answer = requests.get(server.url, headers={"Host": host}, timeout=30)
    assert answer.text == "it works"
    serving.kill()


def test_metrics_say_something(sandbox: Any) -> None:
    [metric] = sandbox.get_metrics()
    assert metric.cpu_count >= 1
    assert 0 < metric.mem_used < metric.mem_total
    assert 0 < metric.disk_used < metric.disk_total
