"""SIGSTOP, which is what a debugger, a suspended machine and malice look like: nothing waits for ever."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults.census import Census, until, wait_until_as_before
from tests.faults.client import Box, Refused, output
from tests.faults.servers import FaultServer, Identity
from tests.processes import children, command, is_running

# What is 30 s in real life.
PATIENCE = 1.0
IMPATIENT = f"""
from sandbox_local.isolation import channel, namespace_box
channel.Channel.call.__kwdefaults__["seconds"] = namespace_box.PATIENCE = {PATIENCE}
"""
BOUND = 5 * PATIENCE


def agent_of(server: FaultServer, box: Box) -> int:
    """The first process of the only sandbox in which a certain program runs."""
    mark = f"1000.{int(box.id[1:], 36) % 1_000_000}"
    box.start(f"exec sleep {mark}").close()
    for agent in server.agents():
        if any(mark in command(child) for child in children(agent)):
            return agent
    raise LookupError(mark)


def refused_in_time(ask: object) -> Refused:
    """The refusal that a request gets; it must come in time."""
    assert callable(ask)
    begun = time.monotonic()
    with pytest.raises(Refused) as caught:
        ask()
    assert time.monotonic() - begun < BOUND
    return caught.value


def test_a_stopped_agent_delays_nobody_for_ever(who: Identity) -> None:
    with FaultServer(who, prelude=IMPATIENT) as server:
        client = server.client()
        for box in [client.create() for _ in range(3)]:
            box.kill()
        other = client.create()
        other.run("true")
        before = Census.of(server)
        box = client.create()
        agent = agent_of(server, box)
        os.kill(agent, signal.SIGSTOP)
        assert "does not answer" in str(refused_in_time(lambda: box.run("true")))
        assert refused_in_time(lambda: box.get(8000)).status == 504
        assert refused_in_time(lambda: client.ask("POST", box.path + "/pause", {})).status == 504
        assert other.run("echo here") == "here\n"
        os.kill(agent, signal.SIGCONT)
        assert box.run("echo here") == "here\n"
        # What was started for nobody is not there.
        until(lambda: box.run("pgrep -c bash || true") == "1\n", lambda: box.run("ps aux"))
        os.kill(agent, signal.SIGSTOP)
        begun = time.monotonic()
        box.kill()
        assert time.monotonic() - begun < PATIENCE
        wait_until_as_before(server, before)


def test_stopped_file_operations_are_replaced(who: Identity) -> None:
    """Whoever is root inside can stop what does the file operations; the server takes another."""
    with FaultServer(who, prelude=IMPATIENT) as server:
        box = server.client().create()
        agent = agent_of(server, box)
        before = set(children(agent))
        box.write("file", b"content")
        (worker,) = set(children(agent)) - before
        os.kill(worker, signal.SIGSTOP)
        assert refused_in_time(lambda: box.read("file")).status == 504
        assert box.read("file") == b"content"
        os.kill(worker, signal.SIGCONT)
        until(lambda: not is_running(worker), lambda: "the one that was given up stays")


def test_a_stopped_launcher_keeps_nothing_from_going_on_or_ending(who: Identity) -> None:
    with FaultServer(who, prelude=IMPATIENT) as server:
        client = server.client()
        for box in [client.create() for _ in range(3)]:
            box.kill()
        before = Census.of(server)
        first, second = client.create(), client.create()
        zygote = server.launchers()[1]
        os.kill(zygote, signal.SIGSTOP)
        assert refused_in_time(client.create).status == 503
        assert first.run("echo here") == "here\n"
        begun = time.monotonic()
        first.kill()
        assert time.monotonic() - begun < BOUND
        os.kill(zygote, signal.SIGCONT)
        third = client.create()
        assert third.run("echo here") == "here\n"
        assert sorted(client.living()) == sorted([second.id, third.id])
        second.kill()
        third.kill()
        wait_until_as_before(server, before)


def test_a_server_with_a_stopped_launcher_ends_with_all_of_it(who: Identity) -> None:
    with FaultServer(who) as server:
        server.client().create()
        launchers = server.launchers()
        os.kill(launchers[1], signal.SIGSTOP)
        server.kill()
        until(lambda: not any(map(is_running, launchers)), lambda: list(map(command, launchers)))


def test_a_server_that_stood_still_goes_on_where_it_was(who: Identity) -> None:
    """Streams go on with all that was written meanwhile; what was due meanwhile happens, and once."""
    with FaultServer(who) as server:
        client = server.client()
        box, due, alive = client.create(), client.create(timeout=2), client.create(timeout=60)
        with box.start("for i in $(seq 20); do echo $i; sleep 0.1; done") as stream:
            first = stream.next()
            server.kill(signal.SIGSTOP)
            time.sleep(3)  # the fault itself
            server.kill(signal.SIGCONT)
            events = [first, *stream.events()]
        assert b"".join(map(output, events)).split() == [b"%d" % number for number in range(1, 21)]
        assert [event["end"].get("exitCode", 0) for event in events if "end" in event] == [0]
        until(lambda: not due.lives(), lambda: "its time is over")
        assert sorted(client.living()) == sorted([box.id, alive.id])
