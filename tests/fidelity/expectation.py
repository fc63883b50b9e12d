"""Whether an answer is as the contract says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.fidelity.answer import Answer
from tests.fidelity.step import Step

ANY = "<any>"
"""Stands in an expectation for a value that is there, whatever it is."""


def problem(step: Step, answer: Answer, known: Mapping[str, str]) -> str | None:
    """What of an answer is not as its step expects, or None.

    `status` and, where given, `body` are compared as a whole, but of objects only the members that are named;
    `headers` holds fields, None for one that must not be there; `lacks` holds members that must not be there.
    """
    wanted = step.expect
    if answer.status != wanted.get("status", 200):
        return f"status: expected {wanted.get('status', 200)}, got {answer.status} {answer.body}"
    for name, value in wanted.get("headers", {}).items():
        given = answer.headers.get(name)
        if (given is None) != (value is None) or (value not in (None, ANY) and value != given):
            return f"headers.{name}: expected {value!r}, got {given!r}"
    if "body" in wanted and (found := _unlike("body", wanted["body"], answer.body, known)):
        return found
    for name in wanted.get("lacks", ()):
        if isinstance(answer.body, dict) and answer.body.get(name) is not None:
            return f"body.{name}: expected to be absent, got {answer.body[name]!r}"
    for word in step.words:
        if word not in answer.raw:
            return f"body: expected to hold {word!r}, got {answer.raw[:300]!r}"
    return None


def _unlike(path: str, wanted: Any, given: Any, known: Mapping[str, str]) -> str | None:
    if wanted == ANY and given is not None:
        return None
    if isinstance(wanted, dict) and isinstance(given, dict):
        for key, value in wanted.items():
            if key not in given:
                return f"{path}.{key}: expected {value!r}, is absent"
            if found := _unlike(f"{path}.{key}", value, given[key], known):
                return found
        return None
    if isinstance(wanted, list) and isinstance(given, list) and len(wanted) == len(given):
        pairs = enumerate(zip(wanted, given, strict=True))
        return next((p for n, (w, g) in pairs if (p := _unlike(f"{path}.{n}", w, g, known))), None)
    if isinstance(wanted, str):
        wanted = re.sub(r"\$([a-z_]+)", lambda match: known.get(match[1], match[0]), wanted)
        given = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    return None if wanted == given else f"{path}: expected {wanted!r}, got {given!r}"
