"""In which functions a side spends its processor time."""

from __future__ import annotations

import cProfile
import pstats
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TOLD = 6


def spent(action: Callable[[], Any], times: int) -> list[tuple[str, float]]:
    """Do something so many times.

    Returns:
        The functions in which this thread has spent most, not counting those that they call; and their share
        of all it has spent.
    """
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    try:
        for _ in range(times):
            action()
    finally:
        profile.disable()
    own = {_label(*place): told[2] for place, told in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    whole = sum(own.values()) or 1.0
    most = sorted(own.items(), key=lambda each: each[1], reverse=True)[:_TOLD]
    return [(name, seconds / whole) for name, seconds in most]


def _label(file: str, line: int, name: str) -> str:
    if file == "~":
        named = re.sub(r"built-in method |method | at 0x[0-9a-f]+", "", name.strip("<>"))
        return named.replace("'", "")
    parts = Path(file).with_suffix("").parts[-2:]
    return f"{'.'.join(part for part in parts if part not in ('site-packages', '__init__'))}.{name}"
