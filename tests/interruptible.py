"""Ctrl-C, for the programs that are started from here."""

from __future__ import annotations

import signal


def let_ctrl_c_be_felt() -> None:
    """Have programs that are started feel SIGINT, also where a shell runs this in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
