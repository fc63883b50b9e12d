"""The examples of the documented surface, made blocking, as the programs that readers make of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sandbox_sync import Sandbox
from tests.strictness import WATCHFUL

PREAMBLE = "from sandbox_sync import Sandbox, SandboxQuery\n"

CREATE = """
sandbox = Sandbox.create()
print(sandbox.sandbox_id)
sandbox.kill()
"""

IS_RUNNING = """
sandbox = Sandbox.create()
print(sandbox.is_running())

sandbox.kill()
print(sandbox.is_running())
"""

CONNECT = """
sandbox = Sandbox.create()
sandbox_id = sandbox.sandbox_id

same_sandbox = Sandbox.connect(sandbox_id)
print(same_sandbox.sandbox_id == sandbox_id, same_sandbox.kill())
"""

QUERY = """
sandbox = Sandbox.create(metadata={"key": "value"})
for found in Sandbox.list(query=SandboxQuery(metadata={"key": "value"})):
    print(found.sandbox_id == sandbox.sandbox_id)
sandbox.kill()
"""

HANDLES = """
sandbox = Sandbox.create()
command = sandbox.commands.run("sleep 60 & echo started; wait", background=True)
for process in sandbox.commands.list():
    same = sandbox.commands.connect(process.pid)
    print(same.pid == command.pid, sandbox.commands.kill(process.pid))
    try:
        same.wait()
    except Exception as error:
        print(type(error).__name__)
sandbox.kill()
"""


def output(program: str, *arguments: str) -> str:
    """What a program prints that ends well, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, *WATCHFUL, "-c", PREAMBLE + program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.documented("Sandbox.create", "Sandbox.sandbox_id")
def test_create(server_env: dict[str, str], transport: str) -> None:
    assert Sandbox.kill(output(CREATE).strip()) is False


@pytest.mark.documented("Sandbox.is_running", "Sandbox.kill")
def test_is_running_before_and_after_the_end(server_env: dict[str, str], transport: str) -> None:
    assert output(IS_RUNNING) == "True\nFalse\n"


@pytest.mark.documented("Sandbox.connect")
def test_connect_to_the_same_sandbox(server_env: dict[str, str], transport: str) -> None:
    assert output(CONNECT) == "True True\n"


@pytest.mark.documented("Sandbox.connect")
def test_connect_from_another_process(sandbox: Sandbox) -> None:
    program = "import sys; print(Sandbox.connect(sys.argv[1]).commands.run('cat note').stdout)"
    sandbox.files.write("note", "left here")
    assert output(program, sandbox.sandbox_id) == "left here\n"


@pytest.mark.documented("Sandbox.list")
def test_list_by_metadata(server_env: dict[str, str], transport: str) -> None:
    with Sandbox.create(metadata={"key": "another value"}):
        assert output(QUERY) == "True\n"


@pytest.mark.documented("Commands.list", "Commands.connect", "Commands.kill", "CommandHandle.wait")
def test_follow_and_kill_what_is_listed(server_env: dict[str, str], transport: str) -> None:
    assert output(HANDLES) == "True True\nCommandExitException\n"
