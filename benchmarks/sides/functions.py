"""In which functions a side spends its processor time."""

from __future__ import annotations

import cProfile
import pstats
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TOLD = 6


def spent(action: Callable[[], Any], times: int) -> list[tuple[str, float]]:
    """Do something so many times.

    Args:
        action: What.
        times: How many.

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
    own: Counter[str] = Counter()  # some have the same name, as comprehensions do
    for place, told in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        own[_label(*place)] += told[2]
    whole = sum(own.values()) or 1.0
    return [(name, seconds / whole) for name, seconds in own.most_common(_TOLD)]


def _label(file: str, line: int, name: str) -> str:
    if file == "~":
        named = re.sub(r"built-in method |method | at 0x[0-9a-f]+", "", name.strip("<>"))
        return named.replace("'", "")
    parts = Path(file).with_suffix("").parts[-2:]
    return f"{'.'.join(part for part in parts if part not in ('site-packages', '__init__'))}.{name}"
