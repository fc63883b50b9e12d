"""What was found, as data and as text."""

from __future__ import annotations

import enum
import textwrap
from dataclasses import dataclass, field
from typing import Any

_WIDTH = 100
_TITLE = 26
_INDENT = " " * (_TITLE + 9)


class State(enum.Enum):
    """How one thing stands."""

    ON = "on"
    PARTLY = "partly"
    OFF = "off"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Finding:
    """One protection, bound or feature.

    Attributes:
        title: Its name.
        state: How it stands; FAILED means that it is claimed and was found not to hold.
        detail: What was seen.
        remedy: What to install or set for more, or "".
    """

    title: str
    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Section:
    """Findings about one subject."""

    title: str
    findings: list[Finding]


@dataclass
class Report:
    """The whole examination.

    Attributes:
        machine: Facts about where it took place, by name.
        sections: The findings.
        refusal: Why sandboxes can't be made here at all, or "".
    """

    machine: dict[str, str]
    sections: list[Section] = field(default_factory=list)
    refusal: str = ""

    @property
    def sound(self) -> bool:
        """Whether sandboxes can be made, and every protection holds that was looked at."""
        found = [finding.state for section in self.sections for finding in section.findings]
        return not self.refusal and State.FAILED not in found

    def as_dict(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "sound": self.sound,
            "machine": self.machine,
            **({"refusal": self.refusal} if self.refusal else {}),
            "sections": {
                section.title: [
                    {
                        "title": each.title,
                        "state": each.state.value,
                        "detail": each.detail,
                        "remedy": each.remedy,
                    }
                    for each in section.findings
                ]
                for section in self.sections
            },
        }

    def as_text(self) -> str:
        """The report for people."""
        lines = [f"{name + ':':<{_TITLE}} {fact}" for name, fact in self.machine.items()]
        if self.refusal:
            return "\n".join([*lines, "", *textwrap.wrap(self.refusal, _WIDTH), ""])
        for section in self.sections:
            lines += ["", section.title]
            for finding in section.findings:
                lines += _lines(finding)
        return "\n".join([*lines, "", self._verdict(), ""])

    def _verdict(self) -> str:
        if not self.sound:
            return "Something does not hold that must: see FAILED above, and do not run untrusted code here."
        return "Sandboxes can be made here, and all that was looked at in one holds."


def _lines(finding: Finding) -> list[str]:
    first, *rest = textwrap.wrap(finding.detail, _WIDTH - len(_INDENT))
    lines = [
        f"  {finding.state.value:<6} {finding.title:<{_TITLE}}{first}",
        *(_INDENT + line for line in rest),
    ]
    if finding.remedy:
        lines += textwrap.wrap(
            f"-> {finding.remedy}", _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT + "   "
        )
    return lines
