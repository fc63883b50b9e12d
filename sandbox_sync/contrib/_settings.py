"""Settings that frameworks hand on, under whatever names they have there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.lease import SHORTEST

DEFAULT_LEASE = 30

_TEXTS = ("template", "api_key", "api_url", "sandbox_url")
_WHOLE_SECONDS = ("timeout", "lease")
_SECONDS = ("request_timeout", "deadline")
_SERVICE = ("api_key", "api_url", "sandbox_url")
_LOCAL = "local"
_KNOWN = (*_TEXTS, *_WHOLE_SECONDS, *_SECONDS, _LOCAL)


@dataclass(frozen=True)
class Settings:
    """What was set, checked.

    Attributes:
        options: What to call `Sandbox.create` with.
        deadline: Seconds that a request or task may take; None for no limit.
    """

    options: Mapping[str, Any] = field(repr=False)  # with the key
    deadline: float | None


def read(given: Mapping[str, Any], spelled: Callable[[str], str]) -> Settings:
    """Check settings.

    Args:
        given: Their values by our names, such as "timeout". None stands for one that is not set.
        spelled: What users call the setting of a name.

    Raises:
        InvalidArgumentException: One is wrong; the message names it as users do and tells no values.
    """
    for name in given:
        if name not in _KNOWN:
            known = ", ".join(sorted(spelled(known) for known in _KNOWN))
            raise InvalidArgumentException(f"{spelled(name)} is no setting; there are {known}")
    values = {name: value for name, value in given.items() if value is not None}
    for name, value in values.items():
        if wanted := _missed(name, value):
            raise InvalidArgumentException(f"{spelled(name)} takes {wanted}, not this {type(value).__name__}")
    if "timeout" in values and "lease" in values:
        raise InvalidArgumentException(
            f"{spelled('timeout')} and {spelled('lease')} exclude each other; leave one of them out"
        )
    if values.pop(_LOCAL, False):
        if remote := [spelled(name) for name in _SERVICE if name in values]:
            raise InvalidArgumentException(f"{spelled(_LOCAL)} is True, so leave out {', '.join(remote)}")
        values["domain"] = "local"
    if "timeout" not in values:
        values.setdefault("lease", DEFAULT_LEASE)
    deadline = values.pop("deadline", None)
    return Settings(values, deadline)


def _missed(name: str, value: object) -> str:
    """What a setting takes, if that is not what it was given."""
    if name == _LOCAL:
        return "" if isinstance(value, bool) else "True or False"
    if name in _TEXTS:
        return "" if isinstance(value, str) else "a text"
    number = isinstance(value, int if name in _WHOLE_SECONDS else (int, float)) and not isinstance(
        value, bool
    )
    if name == "lease":
        return "" if number and value >= SHORTEST else f"whole seconds, {SHORTEST} or more"  # type: ignore[operator]
    wanted = "whole seconds above 0" if name in _WHOLE_SECONDS else "seconds above 0"
    return "" if number and 0 < value < float("inf") else wanted  # type: ignore[operator]
