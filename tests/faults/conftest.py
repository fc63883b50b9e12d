"""What the tests of faults share."""

from __future__ import annotations

import random
import sys

import pytest

from tests.faults.servers import Identity, identity


@pytest.fixture(params=["root", "unprivileged"])
def who(request: pytest.FixtureRequest) -> Identity:
    """Whom the server of the test runs as: each test runs with both."""
    found = identity(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of whatever is left to chance; shown when the test fails."""
    number = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {number}\n")
    return number
