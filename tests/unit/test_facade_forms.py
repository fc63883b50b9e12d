"""Methods with a form for the class and one for its instances."""

from __future__ import annotations

import inspect
import pydoc

from sandbox_sync._class_or_instance import also_on_class, also_on_class_returning_self


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
