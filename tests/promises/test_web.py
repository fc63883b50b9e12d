"""Servers and test runners that fork after the SDK was used."""

from __future__ import annotations

from collections.abc import Callable


def test_preforked_workers_answer(holds: Callable[[], None]) -> None:
    """G34, G44: whatever the first process has used, each worker works at once and gets its own answers."""
    holds()


def test_servers_end_well(holds: Callable[[], None]) -> None:
    """G6, G19: open handles hold up no stop, and the commands of requests that were broken off are ended."""
    holds()


def test_forked_tests_pass(holds: Callable[[], None]) -> None:
    """G34: tests that run in children use what a fixture has made in the parent."""
    holds()
