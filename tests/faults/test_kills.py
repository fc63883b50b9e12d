"""SIGKILL at any moment, under load: what dies is gone to the last process, what lives goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.census import Census, Inhabitants, Remains, until, wait_until_as_before
from tests.faults.client import Client
from tests.faults.load import Load
from tests.faults.servers import FaultServer, Identity

THREADS = 4

AGENT_KILLS = 35  # in each of two tests, as each of two users
LAUNCHER_KILLS = 18  # as each of two users
SERVER_KILLS = 12  # as each of two users


def warm_up(client: Client) -> None:
    """Have as many sandboxes at once as there ever will be, dying ones included."""
    boxes = [client.create() for _ in range(3 * THREADS)]
    for box in boxes:
        box.kill()


@pytest.mark.parametrize("part", [1, 2])
def test_agents_are_killed(who: Identity, seed: int, part: int) -> None:
    """Sandboxes die one by one, some while they are made; the others serve, and nothing remains."""
    chance = random.Random(seed)
    with FaultServer(who) as server:
        warm_up(server.client())
        witness = server.client().create()
        before = Census.of(server)
        steady = server.agents()
        load = Load(server.client(), THREADS, seed)
        killed = 0
        while killed < AGENT_KILLS and not load.findings:
            time.sleep(chance.uniform(0.0, 0.08))
            victims = [agent for agent in server.agents() if agent not in steady]
            with suppress(OSError):  # nobody there, or it has died on its own
                victim = chance.choice(victims or [0])
                inhabitants = Inhabitants(victim)
                os.kill(victim, signal.SIGKILL)
                killed += 1
                inhabitants.wait_until_gone()
        assert witness.run("echo here") == "here\n"
        load.stop()
        assert load.rounds > 0
        assert load.lost > 0
        assert server.client().living() == [witness.id]
        wait_until_as_before(server, before)


def test_launchers_are_killed(who: Identity, seed: int) -> None:
    """All sandboxes die with their launcher; the next that is asked for has another one started."""
    chance = random.Random(seed)
    with FaultServer(who) as server:
        warm_up(server.client())
        before = Census.of(server)
        load = Load(server.client(), THREADS, seed)
        for _ in range(LAUNCHER_KILLS):
            until(lambda: len(server.launchers()) == 2, lambda: server.log)
            time.sleep(chance.uniform(0.0, 0.3))
            victim = chance.choice(server.launchers())
            remains = [Inhabitants(agent) for agent in server.agents() if Path(f"/proc/{agent}").exists()]
            os.kill(victim, signal.SIGKILL)
            until(lambda: not os.path.exists(f"/proc/{victim}"), lambda: server.log)  # noqa: B023
            for inhabitants in remains:
                inhabitants.wait_until_gone()
        until(lambda: len(server.launchers()) == 2, lambda: server.log)
        load.stop()
        assert load.lost > 0
        assert "launcher of sandboxes has died" in server.log
        assert server.client().living() == []
        warm_up(server.client())
        wait_until_as_before(server, before)


def test_servers_are_killed(who: Identity, seed: int) -> None:
    """Nothing of a server outlives it but its state file, which the next one takes over."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="faults-", dir="/tmp") as directory:
        state = who.own(Path(directory)) / "state.json"
        for _ in range(SERVER_KILLS):
            with FaultServer(who, arguments=["--state-file", str(state)]) as server:
                assert json.loads(state.read_text())["pid"] == server.pid
                load = Load(server.client(), THREADS, seed)
                time.sleep(chance.uniform(0.0, 0.5))
                remains = Remains(server)
                load.expect_end()
                server.kill()
                load.stop()
                remains.wait_until_gone()
                assert list(state.parent.iterdir()) == [state]
