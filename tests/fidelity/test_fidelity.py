"""The script against the local server: it keeps the contract, and two of it do not differ."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import pytest

from sandbox_local import LocalServer
from tests.fidelity.compare import Round, rounds
from tests.fidelity.player import Player
from tests.fidelity.step import load


@pytest.fixture(scope="module")
def played() -> Sequence[Round]:
    """The whole script on two servers, which have no other sandboxes: it pages through their lists."""
    with (
        LocalServer() as one,
        LocalServer() as other,
        closing(Player(one.url, one.api_key)) as first,
        closing(Player(other.url, other.api_key)) as second,
    ):
        found = list(rounds(load(), [first, second]))
        assert "Traceback" not in one.log + other.log, one.log + other.log
    return found


def test_the_server_keeps_the_contract(played: Sequence[Round]) -> None:
    assert [found for each in played if (found := each.breach())] == []


def test_two_servers_do_not_differ(played: Sequence[Round]) -> None:
    assert [found for each in played if (found := each.difference())] == []


def test_steps_have_names_of_their_own() -> None:
    names = sorted(step.name for step in load())
    assert names == sorted(set(names))
