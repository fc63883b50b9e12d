"""The documented surface is there: every name, with its parameters, their order and defaults."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterator

import pytest

import sandbox_sync
from tests.contract import public_api
from tests.contract.documented import Entry, entries

ENTRIES = entries()
CALLS = [entry for entry in ENTRIES.values() if not entry.is_property and entry.method != "__init__"]

# Both forms in one: its parameters have two meanings each, and only a call can show that they are taken.
SHOWN_BY_CALLS = {"Filesystem.write[either]"}

# None stands for the default user of the template, which is "user" unless the template says otherwise.
OUR_DEFAULT = {"user": None}

# Handles can be iterated over here, so that no callback has to be given.
OPTIONAL_HERE = {"on_data", "on_event"}

# Handles take a timeout where the documents have no parameter at all, as subprocess.Popen does.
NEWER_BY_POSITION = {("wait", "timeout"), ("kill", "request_timeout"), ("stop", "request_timeout")}


def declared(entry: Entry) -> Iterator[ast.arguments]:
    """Each way to call it, without `self` or `cls`."""
    for node in public_api.documented(entry).declared():
        args = copy.deepcopy(node.args)
        args.args = [argument for argument in args.args if argument.arg not in ("self", "cls")]
        yield args


def problem(entry: Entry, found: ast.arguments) -> str | None:
    """What is different in a declaration of ours."""
    documented = entry.parameters
    names = [argument.arg for argument in found.args]
    if found.posonlyargs:
        return "there are parameters that cannot be named"
    if names[: len(documented)] != [parameter.name for parameter in documented]:
        return f"parameters {names}"
    if newer := [name for name in names[len(documented) :] if (entry.method, name) not in NEWER_BY_POSITION]:
        return f"newer parameters that can be given by position: {newer}"
    required = [inspect.Parameter.empty] * (len(names) - len(found.defaults))
    defaults = [*required, *map(ast.literal_eval, found.defaults)]
    for parameter, default in zip(documented, defaults, strict=False):
        if default is None and parameter.name in OPTIONAL_HERE:
            continue
        if default != parameter.default and default != OUR_DEFAULT.get(parameter.name, parameter.default):
            return f"{parameter.name} is {default!r} by default, and not {parameter.default!r}"
    if any(default is None for default in found.kw_defaults):
        return "a newer parameter has to be given"
    return None


@pytest.mark.parametrize(
    "entry", [pytest.param(entry, id=entry.name) for entry in CALLS if entry.name not in SHOWN_BY_CALLS]
)
def test_documented_parameters_have_their_names_order_and_defaults(entry: Entry) -> None:
    problems = [problem(entry, found) for found in declared(entry)]
    assert None in problems, f"{entry.signature}: {'; '.join(filter(None, problems))}"


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in CALLS if entry.is_shown])
def test_the_signature_at_run_time_is_the_documented_one(entry: Entry) -> None:
    """What help(), an IDE and inspect show takes the documented call, by name and by position."""
    signature = inspect.signature(public_api.looked_up(entry))
    values = {parameter.name: object() for parameter in entry.parameters}
    assert signature.bind(*values.values()).args == tuple(values.values())
    signature.bind(**values)
    assert not {"self", "cls"} & {*signature.parameters}


@pytest.mark.parametrize(
    "entry", [pytest.param(entry, id=entry.name) for entry in ENTRIES.values() if entry.is_property]
)
def test_documented_properties_are_properties(entry: Entry) -> None:
    assert isinstance(inspect.getattr_static(getattr(sandbox_sync, entry.owner), entry.method), property)


def test_the_facts_hold_all_of_the_documents() -> None:
    """46 entries, of which 9 are properties, with 138 parameters and the options of a constructor."""
    assert len(ENTRIES) == 46
    assert sum(entry.is_property for entry in ENTRIES.values()) == 9
    assert sum(len(entry.parameters) for entry in ENTRIES.values()) == 138
