"""Reads documented_surface.pyi: the entries that tests, scripts and docs name."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import NamedTuple

FACTS = Path(__file__).with_name("documented_surface.pyi")

_OWNER = {"SandboxApi": "Sandbox", "SandboxClass": "Sandbox", "FilesystemWrite": "Filesystem"}
_SECTION = {"SandboxClass": "Sandbox", "FilesystemWrite": "Filesystem"}
_ON_CLASS = {"SandboxApi", "SandboxClass"}

# inspect and help() have one signature for a method; of `write` it is the one for one file.
_NOT_SHOWN = {"Filesystem.write[several]", "Filesystem.write[either]"}


class Parameter(NamedTuple):
    """A documented parameter; `default` is `inspect.Parameter.empty` if it has to be given."""

    name: str
    default: object


class Entry(NamedTuple):
    """A documented property or way to call a method.

    Attributes:
        owner: The class of ours that has it.
        method: Its name there.
        form: What tells it apart from the others of that name, if there are any.
        on_class: Whether it is called on the class.
        is_property: Whether it is not called at all.
        parameters: What it takes, in order.
        signature: Its line in the documents, made blocking.
        section: The part of the specification that it stands in.
    """

    owner: str
    method: str
    form: str
    on_class: bool
    is_property: bool
    parameters: tuple[Parameter, ...]
    signature: str
    section: str

    @property
    def name(self) -> str:
        """What tests call it, for example "Filesystem.read[bytes]"."""
        return f"{self.owner}.{self.method}" + (f"[{self.form}]" if self.form else "")

    @property
    def is_shown(self) -> bool:
        """Whether inspect and help() show this form."""
        return self.name not in _NOT_SHOWN


def entries() -> dict[str, Entry]:
    """All documented entries by name, in the order of the documents."""
    found = [
        _entry(kind.name, node)
        for kind in ast.parse(FACTS.read_text()).body
        if isinstance(kind, ast.ClassDef)
        for node in kind.body
        if isinstance(node, ast.FunctionDef)
    ]
    return {entry.name: entry for entry in found}


def _entry(kind: str, node: ast.FunctionDef) -> Entry:
    is_property = any(ast.unparse(decorator) == "property" for decorator in node.decorator_list)
    return Entry(
        owner=_OWNER.get(kind, kind),
        method=node.name,
        form=ast.get_docstring(node) or "",
        on_class=kind in _ON_CLASS or node.name == "__init__",
        is_property=is_property,
        parameters=_parameters(node.args),
        signature=_signature(node, is_property),
        section=f"{_SECTION.get(kind, kind)}, {node.name}",
    )


def _parameters(args: ast.arguments) -> tuple[Parameter, ...]:
    names = [argument.arg for argument in args.args[1:]]
    required = [inspect.Parameter.empty] * (len(names) - len(args.defaults))
    defaults = [*required, *map(ast.literal_eval, args.defaults)]
    return tuple(map(Parameter, names, defaults))


def _signature(node: ast.FunctionDef, is_property: bool) -> str:
    """Without types, but for those that tell forms apart; the file of facts has all."""
    returns = ast.unparse(node.returns).replace("builtins.", "") if node.returns else "None"
    if is_property:
        return f"{node.name}: {returns}"
    if node.args.kwarg:
        return f"{node.name}(**{node.args.kwarg.arg})"
    parameters = []
    for argument, (name, default) in zip(node.args.args[1:], _parameters(node.args), strict=True):
        kind = ast.unparse(argument.annotation) if argument.annotation else ""
        if default is not inspect.Parameter.empty:
            parameters.append(f"{name}={default!r}")
        else:
            parameters.append(f"{name}: {kind}" if kind.startswith("Literal") else name)
    return f"{node.name}({', '.join(parameters)}) -> {returns}"
