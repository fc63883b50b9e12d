"""The programs in a page of Markdown."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$|^(#+ [^\n]*)$", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^ *# > ?(.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A block of Python.

    Attributes:
        line: The line of the page before its first.
        code: Its text.
    """

    line: int
    code: str

    @property
    def shown(self) -> list[str]:
        """The lines that it says it prints, in comments that begin with "# >"; none if it does not say."""
        return _SHOWN.findall(self.code)


class Program(NamedTuple):
    """The blocks of one section of a page, which are one program."""

    page: str
    section: str
    blocks: list[Block]

    @property
    def needs_a_sandbox(self) -> bool:
        """Whether it uses a `sandbox` that it does not make."""
        names = [node for block in self.blocks for node in ast.walk(ast.parse(block.code))]
        uses = [type(node.ctx) for node in names if isinstance(node, ast.Name) and node.id == "sandbox"]
        return bool(uses) and ast.Store not in uses


def programs(root: Path, page: Path) -> list[Program]:
    """The programs of a page, by section."""
    text = page.read_text()
    name = str(page.relative_to(root))
    found: list[Program] = []
    section = ""
    for match in _FENCE.finditer(text):
        language, code, heading = match.groups()
        if heading:
            section = heading.strip("# `")
        elif language == "python":
            if not found or found[-1].section != section:
                found.append(Program(name, section, []))
            line = text.count("\n", 0, match.start(2))
            found[-1].blocks.append(Block(line, code))
    return found
