"""A program that uses all of the SDK as a typed program would. It is checked, not run."""

import io
from collections.abc import Iterator
from datetime import datetime, timezone

from typing_extensions import assert_type

from sandbox_sync import (
    CommandHandle,
    CommandResult,
    ConnectionConfig,
    EntryInfo,
    FileStream,
    FilesystemEvent,
    Listing,
    PoolStats,
    PoolTimeoutException,
    ProcessInfo,
    PtyHandle,
    PtySize,
    Sandbox,
    SandboxException,
    SandboxInfo,
    SandboxMetrics,
    SandboxPool,
    SandboxQuery,
    SnapshotInfo,
    WatchHandle,
    WriteEntry,
    WriteInfo,
    deadline,
)


class Interpreter(Sandbox):
    default_template = "interpreter"


def lifecycle(sandbox_id: str) -> None:
    sandbox = Sandbox.create("base", 60, {"a": "b"}, {"A": "B"}, "key", domain="local", transport="grpc")
    assert_type(sandbox, Sandbox)
    assert_type(Interpreter.create(), Interpreter)
    assert_type(Sandbox.connect(sandbox_id, timeout=60), Sandbox)
    assert_type(Interpreter.connect(sandbox_id), Interpreter)
    assert_type(Interpreter.create().connect(timeout=5), Interpreter)
    assert_type(Sandbox.kill(sandbox_id, api_key="k", proxy=None), bool)
    assert_type(sandbox.kill(request_timeout=1), bool)
    Sandbox.set_timeout(sandbox_id, 60)
    sandbox.set_timeout(60)
    assert_type(Sandbox.get_info(sandbox_id), SandboxInfo)
    assert_type(sandbox.get_info(), SandboxInfo)
    assert_type(sandbox.is_running(), bool)
    assert_type(sandbox.sandbox_id, str)
    assert_type(sandbox.sandbox_domain, str)
    assert_type(sandbox.traffic_access_token, str | None)
    found = Sandbox.list(query=SandboxQuery(metadata={"a": "b"}), limit=10, order="asc")
    assert_type(found, Listing[SandboxInfo])
    for info in found:
        assert_type(info.metadata, dict[str, str])
    assert_type(found[0], SandboxInfo)
    assert_type(found[1:], list[SandboxInfo])
    assert_type(found.next_items(), list[SandboxInfo])
    assert_type(found.has_next, bool)
    assert_type(found.next_token, str | None)
    with Interpreter.create() as interpreter:
        assert_type(interpreter, Interpreter)


def newer(sandbox: Sandbox, sandbox_id: str) -> None:
    assert_type(sandbox.pause(mode="filesystem"), bool)
    assert_type(Sandbox.pause(sandbox_id, strict=True), bool)
    assert_type(sandbox.get_metrics(datetime.now(timezone.utc)), list[SandboxMetrics])
    assert_type(Sandbox.get_metrics(sandbox_id), list[SandboxMetrics])
    sandbox.update_network({"deny_out": ["0.0.0.0/0"]})
    Sandbox.update_network(sandbox_id, {"allow_out": ["example.com"]})
    assert_type(sandbox.create_snapshot("name"), SnapshotInfo)
    assert_type(Sandbox.create_snapshot(sandbox_id), SnapshotInfo)
    assert_type(sandbox.list_snapshots(limit=5), Listing[SnapshotInfo])
    assert_type(Sandbox.list_snapshots(sandbox_id), Listing[SnapshotInfo])
    assert_type(sandbox.fork(count=2), list[Sandbox | SandboxException])
    assert_type(Interpreter.fork(sandbox_id), list[Interpreter | SandboxException])
    assert_type(sandbox.get_host(80), str)
    assert_type(sandbox.download_url("x", "user", 5), str)
    assert_type(sandbox.upload_url(), str)


def configuration(sandbox: Sandbox) -> None:
    config = ConnectionConfig.resolve(api_key="key", debug=True)
    assert_type(config, ConnectionConfig)
    assert_type(sandbox.connection_config, ConnectionConfig)
    assert_type(config.require_api_key(), str)
    assert_type(config.envd_url("id"), str)
    assert_type(config.direct_envd_url("id"), str)
    assert_type(config.get_host("id", 80), str)
    try:
        sandbox.get_info()
    except SandboxException as error:
        assert_type(error.message, str)
        assert_type(error.status, int | None)


def commands(sandbox: Sandbox) -> None:
    assert_type(sandbox.commands.run("ls"), CommandResult)
    assert_type(
        sandbox.commands.run("ls", False, {}, "root", "/", print, print, 0, 5, stdin=True), CommandResult
    )
    handle = sandbox.commands.run("ls", background=True, on_stdout=print, check=False, retain_output=False)
    sandbox.commands.run("ls", kill_on_interrupt=False)
    assert_type(handle, CommandHandle)
    assert_type(sandbox.commands.connect(handle.pid, on_stdout=print), CommandHandle)
    assert_type(handle.wait(timeout=5, on_stderr=print), CommandResult)
    assert_type(handle.poll(), int | None)
    assert_type(handle.pid, int)
    assert_type(handle.stdout + handle.stderr, str)
    assert_type(handle.stdout_bytes + handle.stderr_bytes + handle.pty_bytes, bytes)
    assert_type(handle.error, str | None)
    assert_type(handle.exit_code, int | None)
    for out, _err, _pty in handle:
        assert_type(out, str | None)
    with handle as same:
        same.send_stdin(b"x")
        same.stream_input(["x", b"y"])
        same.close_stdin()
    assert_type(handle.kill(), bool)
    handle.disconnect()
    assert_type(sandbox.commands.list(), list[ProcessInfo])
    sandbox.commands.send_stdin(1, "x")
    sandbox.commands.stream_input(1, pieces())
    sandbox.commands.close_stdin(1)
    assert_type(sandbox.commands.kill(1), bool)


def pieces() -> Iterator[bytes]:
    yield b""


def files(sandbox: Sandbox) -> None:
    assert_type(sandbox.files.read("x"), str)
    assert_type(sandbox.files.read("x", "text"), str)
    assert_type(sandbox.files.read("x", format="bytes", user="root"), bytearray)
    with sandbox.files.read("x", format="stream") as stream:
        assert_type(stream, FileStream)
        assert_type(next(stream), bytes)
        assert_type(stream.read(5), bytes)
        assert_type(stream.read1(5), bytes)
        assert_type(stream.readline(), bytes)
        assert_type(stream.readlines(), list[bytes])
        assert_type(stream.readable(), bool)
        stream.close()
    assert_type(sandbox.files.write("x", "data"), WriteInfo)
    assert_type(sandbox.files.write("x", io.BytesIO(), "root", 5), WriteInfo)
    assert_type(sandbox.files.write("x", pieces()), WriteInfo)
    assert_type(sandbox.files.write([{"path": "x", "data": "y"}]), list[WriteInfo])
    assert_type(sandbox.files.write(files=[WriteEntry(path="x", data=b"y")], user="root"), list[WriteInfo])
    assert_type(sandbox.files.write_files([{"path": "x", "data": "y"}]), list[WriteInfo])
    assert_type(sandbox.files.list(".", depth=2), list[EntryInfo])
    assert_type(sandbox.files.exists("x"), bool)
    assert_type(sandbox.files.get_info("x"), EntryInfo)
    assert_type(sandbox.files.rename("x", "y"), EntryInfo)
    assert_type(sandbox.files.make_dir("x"), bool)
    sandbox.files.remove("x")


def seen(event: FilesystemEvent) -> None:
    assert_type(event.entry, EntryInfo | None)


def ended(error: Exception | None) -> None:
    assert_type(error, Exception | None)


def watches(sandbox: Sandbox) -> None:
    watch = sandbox.files.watch_dir("x", seen, ended, "user", 5, 0, True)
    assert_type(watch, WatchHandle)
    watch.stop()
    with sandbox.files.watch_dir("x", recursive=True) as same:
        assert_type(same.get_new_events(), list[FilesystemEvent])
        assert_type(same.poll(timeout=5), list[FilesystemEvent])
        for event in same.events(timeout=5):
            seen(event)
        for event in same:
            seen(event)
        same.wait(5)


def shown(data: bytes) -> None:
    assert_type(data, bytes)


def terminals(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(PtySize(24, 80), shown, "user", "/tmp", {"A": "B"}, 0, 5)
    assert_type(terminal, PtyHandle)
    same: CommandHandle = sandbox.pty.connect(terminal.pid)
    same.wait()
    terminal.resize(PtySize(rows=24, cols=80))
    sandbox.pty.resize(terminal.pid, PtySize(rows=24, cols=80))
    sandbox.pty.send_stdin(terminal.pid, b"x")
    sandbox.pty.stream_input(terminal.pid, pieces())
    sandbox.pty.close_stdin(terminal.pid)
    assert_type(sandbox.pty.kill(terminal.pid), bool)


def in_time(sandbox: Sandbox) -> float | None:
    with deadline(30) as limit:
        sandbox.commands.run("true")
        return None if limit.expired else limit.remaining()


def pooled() -> None:
    pool = SandboxPool(2, 10, "base", lambda sandbox: sandbox.is_running(), max_uses=5, domain="local")
    pool.warm(timeout=30)
    assert_type(pool.stats(), PoolStats)
    try:
        with pool.sandbox(timeout=5) as sandbox:
            assert_type(sandbox, Sandbox)
    except PoolTimeoutException as error:
        assert_type(error.stats, PoolStats | None)
    pool.release(pool.acquire(), reuse=False)
    with pool as same:
        assert_type(same, SandboxPool)
    pool.close(timeout=5)
