"""What the tests of promises share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sandbox_local import LocalServer
from tests.promises.promises import Promise, promises_of
from tests.promises.runner import OURS, run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `promise` runs for every row that names it, with both of our transports."""
    if "promise" in metafunc.fixturenames:
        name = f"{metafunc.module.__file__.rpartition('/')[2]}::{metafunc.function.__name__}"
        metafunc.parametrize("promise", promises_of(name), ids=str)
        metafunc.parametrize("client", OURS)


@pytest.fixture
def holds(promise: Promise, client: str, server: LocalServer) -> Callable[[], None]:
    """Runs the program and asserts that the promise was kept."""

    def check() -> None:
        outcome = run(promise, client, server.env)
        assert outcome.kept, f"{promise.says}: {outcome.seen}\n{outcome.errors[-3000:]}"

    return check
