"""The official package on commands and terminals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.both import both, e2b, got, newer

pytestmark = pytest.mark.usefixtures("server_env")


@both(envs={"OF_ALL": "all", "WINS": "global"})
async def test_a_command_has_every_option(sandbox: Any) -> None:
    run = sandbox.commands.run
    out: list[str] = []
    err: list[str] = []
    result = await got(
        run(
            "echo out; echo err >&2; echo $OF_ALL $MINE $WINS; pwd; whoami",
            envs={"MINE": "my", "WINS": "own"},
            cwd="/tmp",
            user="root",
            on_stdout=out.append,
            on_stderr=err.append,
            timeout=20,
        )
    )
    assert (result.stdout, result.stderr) == ("out\nall my own\n/tmp\nroot\n", "err\n")
    assert ("".join(out), "".join(err)) == (result.stdout, result.stderr)
    assert result.exit_code == 0
    describing = await got(run("echo $E2B_SANDBOX $E2B_SANDBOX_ID $HOME $USER $LOGNAME"))
    assert describing.stdout.split() == ["true", sandbox.sandbox_id, "/home/user", "user", "user"]
    assert (await got(run("pwd", cwd="~"))).stdout == "/home/user\n"
    assert (await got(run("sudo -n id -u"))).stdout == "0\n"


@both()
async def test_ends_of_commands_are_told_apart(sandbox: Any) -> None:
    run = sandbox.commands.run
    with pytest.raises(e2b.CommandExitException) as failed:
        await got(run("echo so far; echo bad >&2; exit 3"))
    assert (failed.value.exit_code, failed.value.stdout, failed.value.stderr) == (3, "so far\n", "bad\n")
    with pytest.raises(e2b.CommandExitException) as missing:
        await got(run("no-such-program"))
    assert missing.value.exit_code == 127
    with pytest.raises(e2b.TimeoutException):
        await got(run("sleep 30 & sleep 30", timeout=1))
    for _ in range(200):
        if not await got(sandbox.commands.list()):
            break
        await asyncio.sleep(0.02)
    assert await got(sandbox.commands.list()) == []
    with pytest.raises(e2b.InvalidArgumentException, match="cwd '/no/such' does not exist"):
        await got(run("true", cwd="/no/such"))
    with pytest.raises(e2b.AuthenticationException):
        await got(run("true", user="nobodyknown"))


@both()
async def test_output_of_any_size_and_bytes_arrives(sandbox: Any) -> None:
    result = await got(sandbox.commands.run("head -c 3000000 /dev/zero | tr '\\0' x; printf '\\303\\251'"))
    assert result.stdout == "x" * 3_000_000 + "é"


@both()
async def test_a_background_command_is_followed_fed_and_ended(sandbox: Any) -> None:
    commands = sandbox.commands
    handle = await got(
        commands.run("while read line; do echo got $line; done", background=True, stdin=True, timeout=0)
    )
    [listed] = await got(commands.list())
    assert (listed.pid, listed.cmd, listed.args[:2]) == (handle.pid, "/bin/bash", ["-l", "-c"])
    await got(commands.send_stdin(handle.pid, "one\n"))
    await got(handle.send_stdin("two\n"))
    await got(commands.close_stdin(handle.pid))
    result = await got(handle.wait())
    assert (result.stdout, result.exit_code) == ("got one\ngot two\n", 0)
    assert await got(commands.kill(handle.pid)) is False


@newer
@both()
async def test_input_is_streamed(sandbox: Any) -> None:
    handle = await got(sandbox.commands.run("cat", background=True, stdin=True, timeout=0))

    if isinstance(sandbox, e2b.AsyncSandbox):
        stream = await got(sandbox.commands.stream_input(handle.pid))
        for word in ("first ", b"second"):
            await got(stream.send(word))
        await got(stream.close())
    else:
        sandbox.commands.stream_input(handle.pid, ["first ", b"second"])
    await got(handle.close_stdin())
    assert (await got(handle.wait())).stdout == "first second"


@both()
async def test_a_command_is_connected_to_while_it_runs_and_after(sandbox: Any) -> None:
    commands = sandbox.commands
    handle = await got(commands.run("read x; echo $x", background=True, stdin=True, timeout=0))
    again = await got(commands.connect(handle.pid, timeout=0))
    await got(commands.send_stdin(handle.pid, "both\n"))
    assert (await got(again.wait())).stdout == (await got(handle.wait())).stdout == "both\n"
    late = await got(commands.connect(handle.pid))
    assert (await got(late.wait())).exit_code == 0, "it is remembered for a while"
    with pytest.raises(e2b.NotFoundException):
        await got(commands.connect(999_999))


@both()
async def test_a_client_that_leaves_leaves_the_command_running(sandbox: Any) -> None:
    handle = await got(sandbox.commands.run("sleep 60", background=True, timeout=0))
    await got(handle.disconnect())
    assert handle.pid in [process.pid for process in await got(sandbox.commands.list())]
    again = await got(sandbox.commands.connect(handle.pid, timeout=0))
    assert await got(again.kill()) is True
    with pytest.raises(e2b.CommandExitException) as end:
        await got(again.wait())
    assert end.value.exit_code == -1


@both()
async def test_a_terminal_is_made_sized_fed_and_killed(sandbox: Any) -> None:
    heard: list[bytes] = []
    is_async = isinstance(sandbox, e2b.AsyncSandbox)
    on_data: dict[str, Callable[[bytes], None]] = {"on_data": heard.append} if is_async else {}
    pty = sandbox.pty
    terminal = await got(
        pty.create(size=e2b.PtySize(rows=11, cols=77), cwd="/tmp", envs={"MINE": "m"}, timeout=30, **on_data)
    )
    await got(pty.resize(terminal.pid, e2b.PtySize(rows=22, cols=88)))
    await got(pty.send_stdin(terminal.pid, b"stty size; echo $TERM-$MINE-$PWD; exit 4\n"))
    with pytest.raises(e2b.CommandExitException) as end:
        await got(terminal.wait() if is_async else terminal.wait(on_pty=heard.append))
    assert end.value.exit_code == 4
    output = b"".join(heard)
    assert b"22 88" in output
    assert b"xterm-256color-m-/tmp" in output
    other = await got(pty.create(size=e2b.PtySize(rows=24, cols=80), timeout=0, **on_data))
    assert await got(pty.kill(other.pid)) is True
    assert await got(pty.kill(other.pid)) is False


@both()
async def test_many_commands_run_side_by_side(sandbox: Any) -> None:
    if isinstance(sandbox, e2b.AsyncSandbox):
        calls = [sandbox.commands.run(f"echo {n}") for n in range(20)]
    else:
        calls = [asyncio.to_thread(sandbox.commands.run, f"echo {n}") for n in range(20)]
    assert [result.stdout for result in await asyncio.gather(*calls)] == [f"{n}\n" for n in range(20)]
