"""sudo's command line, and what it does with signals before its command runs."""

from __future__ import annotations

import getopt
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_local.isolation import wire
from sandbox_local.isolation.inside import sudo_shim

_SHIM = """
import os, sys
from sandbox_local.isolation.inside import sudo_shim
directory = os.open("/", os.O_PATH)
sys.exit(sudo_shim.run(sys.argv[1], ["true"], {"LONG": "x" * (1 << 21)}, "root", None, directory))
"""
"""Asks for a command in a message that no socket holds."""


@pytest.mark.parametrize(
    ("line", "options", "assigned", "command"),
    [
        ("id -u", {}, {}, ["id", "-u"]),
        ("-u user -n id", {"-u": "user", "-n": ""}, {}, ["id"]),
        ("--user=user --login", {"-u": "user", "-i": ""}, {}, []),
        ("-nHu user -- -x", {"-n": "", "-H": "", "-u": "user"}, {}, ["-x"]),
        ("A=1 B= ./c=d", {}, {"A": "1", "B": ""}, ["./c=d"]),
        ("env A=1", {}, {}, ["env", "A=1"]),
        ("-E env", {"-E": ""}, {}, ["env"]),
        ("--preserve-env env -E", {"-E": ""}, {}, ["env", "-E"]),
        ("ls --preserve-env", {}, {}, ["ls", "--preserve-env"]),
    ],
)
def test_sudo_reads_its_command_line(
    line: str, options: dict[str, str], assigned: dict[str, str], command: list[str]
) -> None:
    request = sudo_shim.Request(line.split())
    assert (request.options, request.assigned, request.command) == (options, assigned, command)


def test_sudo_refuses_what_it_does_not_know() -> None:
    with pytest.raises(getopt.GetoptError):
        sudo_shim.Request(["--no-such-option", "id"])


def test_a_signal_that_comes_before_the_command_runs_reaches_it(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(10)
        shim = subprocess.Popen([sys.executable, "-c", _SHIM, path], stdin=subprocess.DEVNULL)
        try:
            agent = listener.accept()[0]
            with agent:
                agent.settimeout(10)
                assert agent.recv(1, socket.MSG_PEEK)
                shim.send_signal(signal.SIGTERM)  # while it waits for its question to be read
                asked, fds = wire.recv(agent)
                for fd in fds:
                    os.close(fd)
                assert asked["op"] == "run"
                wire.send(agent, {"ok": {}})
                assert wire.recv(agent)[0] == {"op": "signal", "args": {"signum": signal.SIGTERM}}
                wire.send(agent, {"event": "exit", "code": 9, "signal": 0})
                assert shim.wait(10) == 9
        finally:
            shim.kill()
            shim.wait()
