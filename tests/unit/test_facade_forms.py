"""Methods with a form for the class and one for its instances."""

from __future__ import annotations

import inspect
import pickle
import pydoc
from collections.abc import Callable

import pytest

from sandbox_sync import Sandbox, SandboxException
from sandbox_sync._class_or_instance import (
    also_on_class,
    also_on_class_returning_self,
    also_on_class_returning_selves,
)


def end(thing_id: str, key: str | None = None) -> str:
    """End a thing by its id."""
    return f"by id {thing_id} {key}"


class Thing:
    """A thing."""

    @also_on_class(end)
    def end(self, patience: float = 1.0) -> str:
        """End this thing."""
        return f"this {patience}"

    @classmethod
    def _find_by_id(cls, thing_id: str) -> Thing:
        """Find a thing."""
        return cls()

    @also_on_class_returning_self(_find_by_id)
    def find(self) -> Thing:
        """Find this thing again."""
        return self

    @classmethod
    def _split_by_id(cls, thing_id: str) -> list[Thing | SandboxException]:
        """Split a thing."""
        return [cls(), cls()]

    @also_on_class_returning_selves(_split_by_id)
    def split(self, parts: int) -> list[Thing | SandboxException]:
        """Split this thing."""
        return [type(self)() for _ in range(parts)]


class Special(Thing):
    """A thing of a kind."""


def test_the_class_and_its_instances_have_each_their_own_form() -> None:
    assert Thing.end("x", key="k") == "by id x k"
    assert Thing().end(patience=2) == "this 2"


def test_signatures_and_docs_are_those_of_the_form_that_is_meant() -> None:
    assert [*inspect.signature(Thing.end).parameters] == ["thing_id", "key"]
    assert [*inspect.signature(Thing().end).parameters] == ["patience"]
    assert Thing.end.__doc__ == "End a thing by its id."
    assert Thing().end.__doc__ == "End this thing."
    assert Thing().end.__qualname__ == "Thing.end"
    assert "end(thing_id: 'str', key" in pydoc.plain(pydoc.render_doc(Thing))


def test_a_method_is_equal_to_itself() -> None:
    thing = Thing()
    assert thing.end == thing.end
    assert Thing.end == Thing.end


def test_subclasses_find_their_own_kind() -> None:
    special = Special.find("x")
    assert type(special) is Special
    assert special.find() is special
    assert Special.end("y") == "by id y None"
    assert [type(part) for part in (*Special.split("x"), *special.split(3))] == [Special] * 5


def test_a_form_is_a_plain_function_or_method_of_its_class() -> None:
    assert inspect.isfunction(Thing.end)
    assert inspect.ismethod(Thing().end)
    assert inspect.ismethod(Thing.find)
    for form in (Thing.end, Thing().end, Thing.find, Thing().find):
        assert form.__module__ == __name__
        assert form.__qualname__ == f"Thing.{form.__name__}"
    assert pickle.loads(pickle.dumps(Thing.end)) is Thing.end
    assert len({Thing.end, Thing.end, Thing().end, Thing().end}) == 3


TWICE = [
    "connect",
    "create_snapshot",
    "fork",
    "get_info",
    "get_metrics",
    "kill",
    "list_snapshots",
    "pause",
    "set_timeout",
    "update_network",
]


@pytest.mark.parametrize("name", TWICE)
def test_both_forms_of_a_sandboxs_methods_tell_of_themselves(name: str) -> None:
    at_hand = object.__new__(Sandbox)
    forms: list[Callable[..., object]] = [getattr(Sandbox, name), getattr(at_hand, name)]
    by_id, of_one = [inspect.signature(form).parameters for form in forms]
    assert next(iter(by_id)) == "sandbox_id"
    assert "sandbox_id" not in of_one
    assert {"self", "cls"}.isdisjoint({*by_id, *of_one})
    # Beside how to connect, what the one takes the other takes, with the same defaults.
    assert {*of_one} - {"request_timeout"} <= {*by_id}
    for parameter in {*of_one} & {*by_id}:
        assert of_one[parameter].default == by_id[parameter].default, parameter
    for form, parameters in zip(forms, (by_id, of_one), strict=True):
        assert form.__module__ == "sandbox_sync.sandbox"
        assert form.__qualname__.rpartition(".")[2] == name
        shown = pydoc.plain(pydoc.render_doc(form))
        for parameter in parameters:
            assert f"    {parameter}: " in shown.replace("**", ""), parameter
    assert forms[0].__doc__ != forms[1].__doc__
    assert getattr(at_hand, name) == getattr(at_hand, name)
    assert getattr(Sandbox, name) == getattr(Sandbox, name)


def test_every_method_that_exists_twice_is_known() -> None:
    found = {name for name, value in vars(Sandbox).items() if hasattr(value, "_on_instance")}
    assert found == set(TWICE)
