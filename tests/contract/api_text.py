"""The public API in Markdown, from signatures and docstrings: what docs/reference.md says of each name."""

from __future__ import annotations

import ast
import inspect
from enum import Enum
from typing import is_typeddict

from sandbox_sync import SandboxException
from tests.contract import docstrings, public_api
from tests.contract.docstrings import Docstring
from tests.contract.public_api import Member

# These are described as a whole, in one place, with all that they have.
WHOLE = {"ConnectionConfig", "FileStream", "Listing"}


def regions() -> dict[str, str]:
    """For each name that the reference has to have, what is generated for it."""
    data = ""
    found: dict[str, str] = {}
    for kind in public_api.classes():
        if issubclass(kind, SandboxException):
            continue
        members = list(public_api.members(kind))
        methods = [member for member in members if not member.is_property]
        text = _description(docstrings.read(kind.__doc__))
        text += _properties([member for member in members if member.is_property])
        if not methods:
            data += f"\n### {kind.__name__}\n\n{text}{_values(kind)}{_inherited_keys(kind)}"
            continue
        if kind.__name__ in WHOLE:
            text += "".join(f"\n{_method(member)}" for member in methods)
        else:
            found.update({member.path.replace(" ", "-"): _method(member) for member in methods})
        found[kind.__name__] = text
    return {**found, "data": data.lstrip("\n"), "errors": _errors()}


def _values(kind: type) -> str:
    if not issubclass(kind, Enum):
        return ""
    return "\n" + "".join(f"- `{member.name}`: {member.value!r}\n" for member in kind)


def _inherited_keys(kind: type) -> str:
    """What a dict of given keys has from others; at run time it does not know from which."""
    if not is_typeddict(kind):
        return ""
    (source,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(source, ast.ClassDef)
    bases = [f"`{name}`" for name in map(ast.unparse, source.bases) if name != "TypedDict"]
    return f"\nIt has the keys of {' and '.join(bases)}, too.\n" if bases else ""


def _properties(members: list[Member]) -> str:
    lines = []
    for member in members:
        about = docstrings.read(member.doc)
        (node,) = member.declared()
        raises = "".join(f" Raises `{name}`: {text}" for name, text in about.items("Raises").items())
        lines.append(f"- `{member.name}: {_returns(member, node)}`: {' '.join(about.text.split())}{raises}\n")
    return "\nProperties:\n" + "".join(lines) if lines else ""


def _returns(member: Member, node: ast.FunctionDef) -> str:
    returns = ast.unparse(node.returns) if node.returns else "None"
    return returns.replace("builtins.", "").replace("Self", member.owner.__name__)


def _method(member: Member) -> str:
    about = docstrings.read(member.doc)
    calls = "\n".join(_call(member, node) for node in member.declared())
    return f"```py\n{calls}\n```\n\n{_description(about)}"


def _description(about: Docstring) -> str:
    parts = [about.text]
    for section in ("Args", "Attributes"):
        if items := about.items(section):
            parts.append("\n".join(f"- `{name}`: {text}" for name, text in items.items()))
    if returns := about.sections.get("Returns"):
        parts.append(f"Returns: {' '.join(returns.split())}")
    if raises := about.items("Raises"):
        parts.append("Raises:\n" + "\n".join(f"- `{name}`: {text}" for name, text in raises.items()))
    if about.specified:
        parts.append(f"Specified in: {about.specified}.")
    return "\n\n".join(parts) + "\n"


def _call(member: Member, node: ast.FunctionDef) -> str:
    """How it is called: on the class or on an instance, one parameter to a line if it is long."""
    owner = member.owner.__name__
    prefix = owner if member.on_class else _INSTANCE.get(owner, owner.lower())
    returns = _returns(member, node)
    parameters = _parameters(node.args)
    line = f"{prefix}.{member.name}({', '.join(parameters)}) -> {returns}"
    if len(line) <= 110:
        return line
    body = "".join(f"    {parameter},\n" for parameter in parameters)
    return f"{prefix}.{member.name}(\n{body}) -> {returns}"


_INSTANCE = {
    "Commands": "sandbox.commands",
    "Filesystem": "sandbox.files",
    "Pty": "sandbox.pty",
    "SandboxPool": "pool",
    "CommandHandle": "handle",
    "WatchHandle": "watch",
    "FileStream": "stream",
    "ConnectionConfig": "config",
}


def _parameters(args: ast.arguments) -> list[str]:
    positional = [*args.posonlyargs, *args.args]
    required: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    defaults = [*required, *args.defaults]
    found = [
        _parameter(argument, default)
        for argument, default in zip(positional, defaults, strict=True)
        if argument.arg not in ("self", "cls")
    ]
    if args.vararg:
        found.append(f"*{args.vararg.arg}")
    elif args.kwonlyargs:
        found.append("*")
    found += [
        _parameter(argument, default)
        for argument, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
    ]
    if args.kwarg:
        found.append(f"**{args.kwarg.arg}: {ast.unparse(args.kwarg.annotation or ast.Constant(None))}")
    return found


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation:
        text += f": {ast.unparse(argument.annotation).replace('builtins.', '')}"
    return text if default is None else f"{text} = {ast.unparse(default)}"


def _errors() -> str:
    rows = ["| error | is a | raised when |", "|---|---|---|"]
    for kind in public_api.classes():
        if issubclass(kind, SandboxException):
            base = kind.__bases__[0].__name__ if kind is not SandboxException else "Exception"
            about = docstrings.read(kind.__doc__)
            text = " ".join(about.text.split())
            fields = {**about.items("Args"), **about.items("Attributes")}
            fields.pop("message", None)
            if fields:
                text += " Has " + ", ".join(f"`{name}`" for name in fields) + "."
            rows.append(f"| `{kind.__name__}` | `{base}` | {text} |")
    return "\n".join(rows) + "\n"
