"""Sizes on the command line, such as 512M."""

from __future__ import annotations

import argparse
import re

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def size(text: str) -> int:
    """Bytes, from a number with an optional K, M, G or T behind it, which are powers of 1024.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    count = int(float(match[1]) * (1 << _UNITS[match[2].upper()])) if match else 0
    if not 0 < count < 1 << 60:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write one such as 512M or 2G")
    return count
