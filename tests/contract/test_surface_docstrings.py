"""What the docstrings of the public API say: of every parameter, and of where documented names come from."""

from __future__ import annotations

import ast
import dataclasses
import re
from typing import is_typeddict

import pytest

import sandbox_sync
from sandbox_sync import SandboxException
from tests.contract import docstrings, public_api
from tests.contract.documented import entries
from tests.contract.public_api import Member

CLASSES = public_api.classes()
MEMBERS = [member for kind in CLASSES for member in public_api.members(kind)]
METHODS = [member for member in MEMBERS if not member.is_property]

SECTIONS = {
    (entry.owner, entry.method, entry.on_class): entry.section
    for entry in entries().values()
    if entry.method != "__init__"
}


def parameters(member: Member) -> set[str]:
    """Every parameter that any form of the method has."""
    found: set[str] = set()
    for node in member.declared():
        args = node.args
        found |= {argument.arg for argument in (*args.posonlyargs, *args.args, *args.kwonlyargs)}
        if args.vararg:
            found.add(f"*{args.vararg.arg}")
        if args.kwarg:
            found.add(f"**{args.kwarg.arg}")
    return found - {"self", "cls"}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: str(kind.__name__))
def test_every_class_says_what_it_is(kind: type) -> None:
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}("), "the text that dataclasses make up says nothing"
    assert kind.__doc__.split("\n")[0].endswith((".", ":", "?"))


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if dataclasses.is_dataclass(kind)])
def test_every_field_is_described(kind: type) -> None:
    fields = {field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")}
    assert {*docstrings.read(kind.__doc__).items("Attributes")} == fields


DICTS = [kind for kind in CLASSES if is_typeddict(kind)]


@pytest.mark.parametrize("kind", DICTS)
def test_every_key_is_described(kind: type) -> None:
    """By the class itself, or by one that it extends."""
    keys = {*kind.__annotations__}
    extended = [other for other in DICTS if {*other.__annotations__} <= keys]
    described = [set(docstrings.read(other.__doc__).items("Attributes")) for other in extended]
    assert set().union(*described) == keys


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: str(member.path))
def test_every_method_and_property_says_what_it_does(member: Member) -> None:
    about = docstrings.read(member.doc)
    assert about.text
    assert about.text.endswith((".", ":"))


@pytest.mark.parametrize("member", METHODS, ids=lambda member: str(member.path))
def test_every_parameter_is_described(member: Member) -> None:
    described = docstrings.read(member.doc).items("Args")
    assert {*described} == parameters(member)
    assert all(text.endswith(".") for text in described.values())


# A result that the first sentence describes, as in "The entries of a directory.", is not described again.
TELLS_ITS_RESULT = re.compile(r"^(A|Base|Host|How|Iterate|Read|The|What|Whether|Write)\b")


@pytest.mark.parametrize("member", METHODS, ids=lambda member: str(member.path))
def test_every_result_is_described(member: Member) -> None:
    about = docstrings.read(member.doc)
    returns = {ast.unparse(node.returns) for node in member.declared() if node.returns}
    if returns <= {"None"}:
        assert "Returns" not in about.sections
    else:
        assert "Returns" in about.sections or TELLS_ITS_RESULT.match(about.text)


@pytest.mark.parametrize("member", METHODS, ids=lambda member: str(member.path))
def test_errors_that_are_named_exist(member: Member) -> None:
    for name in docstrings.read(member.doc).items("Raises"):
        found = getattr(sandbox_sync, name, None)
        assert name == "Exception" or (isinstance(found, type) and issubclass(found, SandboxException))


def asks_the_service(member: Member) -> bool:
    """Whether a call of it goes over the network, as its timeout shows."""
    return "request_timeout" in parameters(member)


@pytest.mark.parametrize(
    "member", [member for member in METHODS if asks_the_service(member)], ids=lambda member: str(member.path)
)
def test_every_call_says_what_it_raises(member: Member) -> None:
    assert "Raises" in docstrings.read(member.doc).sections


TIMES = ("timeout", "request_timeout", "stream_idle_timeout")


@pytest.mark.parametrize("member", METHODS, ids=lambda member: str(member.path))
def test_times_have_their_unit(member: Member) -> None:
    for name, text in docstrings.read(member.doc).items("Args").items():
        if name in TIMES:
            assert re.search(r"\b[Ss]econds\b|\bs\b|As for `|as for `", text), f"{name}: {text}"


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: str(member.path))
def test_documented_names_say_where_they_are_specified(member: Member) -> None:
    expected = SECTIONS.get((member.owner.__name__, member.name, member.on_class))
    assert docstrings.read(member.doc).specified == expected
