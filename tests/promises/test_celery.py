"""Tasks in the forked processes of a Celery worker."""

from __future__ import annotations

from collections.abc import Callable


def test_tasks_in_forked_processes_answer(holds: Callable[[], None]) -> None:
    """G34: a prefork worker whose parent has used the SDK runs tasks that use it too."""
    holds()
