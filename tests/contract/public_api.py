"""What sandbox_sync offers: its public classes, their methods and properties, and their declarations."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import sandbox_sync
from sandbox_sync._class_or_instance import _TwoForms
from tests.contract.documented import Entry

# What modules of the SDK call of each other's classes, and users do not.
_INTERNAL = {
    "ConnectionConfig.deadline",
    "ConnectionConfig.log",
    "ConnectionConfig.without_secrets",
}


class Member(NamedTuple):
    """A public method or property, in one of its forms.

    Attributes:
        owner: The class it is reached through.
        name: Its name there.
        on_class: Whether this form is called on the class.
        function: What runs: a property's getter, a method's function.
        is_property: Whether it is a property.
    """

    owner: type
    name: str
    on_class: bool
    function: Callable[..., Any]
    is_property: bool = False

    @property
    def path(self) -> str:
        """For example "Sandbox.kill[by id]"; the form is told only where there are two."""
        two = isinstance(inspect.getattr_static(self.owner, self.name), _TwoForms)
        return f"{self.owner.__name__}.{self.name}" + ("[by id]" if two and self.on_class else "")

    @property
    def doc(self) -> str:
        """Its docstring, without indentation."""
        return inspect.cleandoc(self.function.__doc__ or "")

    def declared(self) -> list[ast.FunctionDef]:
        """Its overloads as they stand in the source, or itself if it has none."""
        return _declarations(self.function)


def classes() -> list[type]:
    """The public classes, in the order of `sandbox_sync.__all__`."""
    named = (getattr(sandbox_sync, name) for name in sandbox_sync.__all__)
    ours = (kind for kind in named if isinstance(kind, type) and kind.__module__.startswith("sandbox_sync"))
    return list(dict.fromkeys(ours))


def members(owner: type) -> Iterator[Member]:
    """The public methods and properties that a class has of its own, or from a base that is not public."""
    bases = [kind for kind in owner.__mro__ if kind is owner or kind.__name__.startswith("_")]
    for name in dict.fromkeys(name for kind in reversed(bases) for name in vars(kind)):
        if name.startswith("_") or f"{owner.__name__}.{name}" in _INTERNAL:
            continue
        attribute = inspect.getattr_static(owner, name)
        if isinstance(attribute, property):
            assert attribute.fget is not None
            yield Member(owner, name, False, attribute.fget, is_property=True)
        elif isinstance(attribute, (classmethod, staticmethod)):
            yield Member(owner, name, True, attribute.__func__)
        elif isinstance(attribute, _TwoForms):
            for on_class, instance in ((True, None), (False, object())):
                form = attribute.__get__(instance, owner)
                yield Member(owner, name, on_class, getattr(form, "__func__", form))
        elif inspect.isfunction(attribute):
            yield Member(owner, name, False, attribute)


def documented(entry: Entry) -> Member:
    """Our method for a documented entry."""
    (found,) = [
        member
        for member in members(getattr(sandbox_sync, entry.owner))
        if (member.name, member.on_class) == (entry.method, entry.on_class)
    ]
    return found


def looked_up(entry: Entry) -> Callable[..., Any]:
    """The same as a caller gets it, from the class or from an instance that is good for nothing else."""
    owner = getattr(sandbox_sync, entry.owner)
    method: Callable[..., Any] = getattr(owner if entry.on_class else object.__new__(owner), entry.method)
    return method


def _declarations(function: Callable[..., Any]) -> list[ast.FunctionDef]:
    code = function.__code__
    for siblings in _bodies(code.co_filename):
        for position, node in enumerate(siblings):
            if isinstance(node, ast.FunctionDef) and code.co_firstlineno == _first_line(node):
                overloads = [
                    other
                    for other in siblings[:position]
                    if isinstance(other, ast.FunctionDef) and other.name == node.name and _is_overload(other)
                ]
                return overloads or [node]
    raise LookupError(f"{function!r} is not in {code.co_filename}")


@cache
def _bodies(filename: str) -> list[list[ast.stmt]]:
    with open(filename, encoding="utf-8") as source:
        tree = ast.parse(source.read())
    return [node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef)]


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _is_overload(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
