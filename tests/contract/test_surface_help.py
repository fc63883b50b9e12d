"""What help() shows of the documented surface."""

from __future__ import annotations

import inspect
import pydoc
import re

import pytest

import sandbox_sync
from sandbox_sync import Sandbox
from tests.contract import docstrings, public_api
from tests.contract.documented import Entry, entries

CALLS = [entry for entry in entries().values() if not entry.is_property and entry.method != "__init__"]
SANDBOX = object.__new__(Sandbox)


def shown(thing: object) -> str:
    """What help() prints, with the form of the call in one line: Python 3.13 breaks long ones."""
    text = pydoc.plain(pydoc.render_doc(thing))
    return re.sub(r"^\w+\(\n.*?^\)", _in_one_line, text, flags=re.MULTILINE | re.DOTALL)


def _in_one_line(call: re.Match[str]) -> str:
    return " ".join(call[0].split()).replace("( ", "(").replace(" )", ")")


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in CALLS if entry.is_shown])
def test_help_shows_the_form_that_is_meant(entry: Entry) -> None:
    text = shown(public_api.looked_up(entry))
    call = next(line for line in text.splitlines() if line.startswith(f"{entry.method}("))
    names = [parameter.name for parameter in entry.parameters]
    positions = [re.search(rf"\b{name}: ", call) for name in names]
    assert None not in positions
    starts = [position.start() for position in positions if position]
    assert starts == sorted(starts)
    assert not re.search(r"\b(self|cls)\b", call)
    first_line = docstrings.read(public_api.documented(entry).doc).text.splitlines()[0]
    assert first_line in text


def test_help_of_the_class_form_and_of_the_instance_form_differ() -> None:
    by_id, at_hand = shown(Sandbox.kill), shown(SANDBOX.kill)
    assert "kill(sandbox_id: 'str', api_key" in by_id
    assert "Id of the sandbox" in by_id
    assert "kill(request_timeout" in at_hand
    assert "sandbox_id" not in at_hand
    assert "api_key" not in at_hand


def test_help_of_the_class_shows_every_method_and_says_that_some_exist_twice() -> None:
    text = shown(Sandbox)
    for member in public_api.members(Sandbox):
        assert re.search(rf"^ \|  {member.name}\b", text, re.MULTILINE), member.path
    assert "help(sandbox.kill)" in text
    assert "Sandbox.create()" in text


def test_help_of_the_package_shows_what_it_exports() -> None:
    assert {*sandbox_sync.__all__} <= {*dir(sandbox_sync)}
    assert inspect.getdoc(sandbox_sync)
    text = shown(sandbox_sync)
    for kind in (Sandbox, sandbox_sync.CommandHandle, sandbox_sync.SandboxException):
        assert f"class {kind.__name__}(" in text
