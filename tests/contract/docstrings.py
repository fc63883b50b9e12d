"""Reads docstrings in the form that the project uses: text, then sections such as Args and Raises."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example):\n((?:(?:    .*)?(?:\n|$))+)", re.MULTILINE)
_ITEM = re.compile(r"^(\*{0,2}\w+): (.*(?:\n    .*)*)", re.MULTILINE)
_SPECIFIED = re.compile(r"^Specified in: (.*)\n?\Z", re.MULTILINE)


class Docstring(NamedTuple):
    """A docstring, taken apart.

    Attributes:
        text: What stands before the sections.
        sections: What stands in each section.
        specified: Where it comes from in the documented surface: the last line, "Specified in: Class, name".
    """

    text: str
    sections: dict[str, str]
    specified: str | None

    def items(self, section: str) -> dict[str, str]:
        """What a section of names says about each."""
        return {
            name: " ".join(text.split())
            for name, text in _ITEM.findall(self.sections.get(section, "") + "\n")
        }


def read(doc: str | None) -> Docstring:
    """Take a docstring apart."""
    text = inspect.cleandoc(doc or "") + "\n"
    specified = _SPECIFIED.search(text)
    sections = {name: inspect.cleandoc(" \n" + body) for name, body in _SECTION.findall(text)}
    first = min((match.start() for match in [*_SECTION.finditer(text), specified] if match), default=None)
    return Docstring(text[:first].strip(), sections, specified.group(1) if specified else None)
