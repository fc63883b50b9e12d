"""Tests that run in children of a process in which a fixture of the session has used the SDK."""

from __future__ import annotations

import os
from typing import Any

import pytest
from client import Sandbox, sandbox

parent = os.getpid()


@pytest.fixture(scope="session")
def box() -> Any:
    """A sandbox that the tests share, with a command that is followed for as long as they run."""
    made = sandbox()
    Sandbox.get_info(made.sandbox_id)
    made.handle = made.commands.run("sleep 50", background=True)
    made.commands.run("true")
    return made


def test_the_parent_begins(box: Any) -> None:
    assert os.getpid() == parent
    assert box.commands.run("echo parent").stdout == "parent\n"


@pytest.mark.forked
@pytest.mark.parametrize("number", range(2))
def test_the_sandbox_of_the_parent_works(box: Any, number: int) -> None:
    assert os.getpid() != parent
    assert box.commands.run(f"echo {number}").stdout == f"{number}\n"
    box.files.write(f"/tmp/{number}", f"{number}")
    assert box.files.read(f"/tmp/{number}") == f"{number}"


@pytest.mark.forked
def test_a_new_one_works(box: Any) -> None:
    assert os.getpid() != parent
    with sandbox() as other:
        assert other.commands.run("echo new").stdout == "new\n"


def test_the_parent_goes_on(box: Any) -> None:
    assert os.getpid() == parent
    assert box.commands.run("echo still").stdout == "still\n"
