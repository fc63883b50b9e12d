"""A program that uses all of the SDK as a typed program would. It is checked, not run."""

import io
from collections.abc import Iterator

from typing_extensions import assert_type

from sandbox_sync import (
    CommandHandle,
    CommandResult,
    EntryInfo,
    FileStream,
    Listing,
    ProcessInfo,
    Sandbox,
    SandboxInfo,
    SandboxQuery,
    WriteEntry,
    WriteInfo,
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
    found = Sandbox.list(query=SandboxQuery(metadata={"a": "b"}), limit=10, order="asc")
    assert_type(found, Listing[SandboxInfo])
    for info in found:
        assert_type(info.metadata, dict[str, str])
    assert_type(found[0], SandboxInfo)
    assert_type(found[1:], list[SandboxInfo])
    assert_type(found.next_items(), list[SandboxInfo])
    with Interpreter.create() as interpreter:
        assert_type(interpreter, Interpreter)


def commands(sandbox: Sandbox) -> None:
    assert_type(sandbox.commands.run("ls"), CommandResult)
    assert_type(
        sandbox.commands.run("ls", False, {}, "root", "/", print, print, 0, 5, stdin=True), CommandResult
    )
    handle = sandbox.commands.run("ls", background=True, on_stdout=print, check=False, retain_output=False)
    assert_type(handle, CommandHandle)
    assert_type(sandbox.commands.connect(handle.pid, on_stdout=print), CommandHandle)
    assert_type(handle.wait(timeout=5, on_stderr=print), CommandResult)
    assert_type(handle.poll(), int | None)
    assert_type(handle.stdout_bytes, bytes)
    for out, _err, _pty in handle:
        assert_type(out, str | None)
    with handle as same:
        same.send_stdin(b"x")
        same.close_stdin()
    assert_type(handle.kill(), bool)
    handle.disconnect()
    assert_type(sandbox.commands.list(), list[ProcessInfo])
    sandbox.commands.send_stdin(1, "x")
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
