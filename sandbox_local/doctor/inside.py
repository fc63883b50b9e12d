"""What a sandbox can see and do, looked at from inside of it.

The host's side lays out what must not be found: a file, an environment variable, a server on its loopback, an
abstract socket. Each finding says what came of looking for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from sandbox_local.doctor.look import run
from sandbox_local.doctor.machine import newuidmap
from sandbox_local.doctor.report import Finding, Section, State
from sandbox_local.isolation.base import Box

CANARY = "SANDBOX_DOCTOR_CANARY"
"""Variable that the server's environment must hold from before its start."""

_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_DANGEROUS = {
    12: "NET_ADMIN",
    13: "NET_RAW",
    16: "SYS_MODULE",
    17: "SYS_RAWIO",
    21: "SYS_ADMIN",
    22: "SYS_BOOT",
    25: "SYS_TIME",
    38: "PERFMON",
    39: "BPF",
}
_WITHOUT_BOUND = 1 << 60

# Prints `key value` lines; run by bash, with builtins wherever one will do.
_SCRIPT = r"""
secret=$1 port=$2 canary=$3
while read -r name value _; do
  case $name in Seccomp:|CapBnd:) echo "$name $value";; esac
done < /proc/self/status
read -r _ base size < /proc/self/uid_map; echo "ids: $base $size"
for kind in cgroup ipc mnt net pid user uts; do echo "ns-$kind: $(readlink /proc/self/ns/$kind)"; done
echo "processes: $(cd /proc && echo [0-9]* | wc -w)"
[ -e "$secret" ] && echo "file: seen"
[ -n "${!canary}" ] && echo "environment: seen"
(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && echo "loopback: reached"
head -c1 /proc/1/environ >/dev/null 2>&1 && echo "agent: read"
(ls /proc/self/fd | wc -l) | { read -r count; echo "descriptors: $((count - 4))"; }
interfaces=0
while read -r line; do case $line in lo:*) ;; *:*) interfaces=$((interfaces + 1));; esac; done < /proc/net/dev
echo "interfaces: $interfaces"
(: > /usr/bin/.written) 2>/dev/null && { echo "system: written"; rm -f /usr/bin/.written; }
unshare -r true 2>/dev/null && echo "namespaces: made"
"""
_SUDO_SCRIPT = r"""
echo "sudo: $(sudo -n id -u 2>/dev/null) $(readlink -f "$(command -v sudo)")"
"""


@dataclass(frozen=True)
class _Bait:
    """What lies outside and must not be found inside."""

    path: str
    port: int


async def examine(one: Box, two: Box) -> list[Section]:
    """Look around in two sandboxes of the same server.

    Args:
        one: The one that is examined.
        two: Another, that must differ from it.

    Raises:
        OSError: No command could be started in them.
    """
    with _bait() as bait:
        seen = await _look(one, _SCRIPT, bait, "root")
        other = await _look(two, _SCRIPT, bait, "root")
        sudo = await _look(one, _SUDO_SCRIPT, bait, "user")
    return findings({**seen, **sudo}, other)


def findings(seen: dict[str, str], other: dict[str, str]) -> list[Section]:
    """What follows from what a sandbox said that it sees.

    Args:
        seen: By names, as the scripts print them.
        other: The same of another sandbox.
    """
    apart = [
        _namespaces(seen),
        _nothing_of_the_host(seen, "files", "file", "a file of the host"),
        _processes(seen),
        _nothing_of_the_host(seen, "environment", "environment", "a variable of the server"),
        _nothing_of_the_host(seen, "loopback", "loopback", "a server on the host's 127.0.0.1"),
        _nothing_of_the_host(seen, "first process", "agent", "the environment of process 1"),
        _descriptors(seen),
        _seccomp(seen),
        _capabilities(seen),
    ]
    return [
        Section("Kept apart from the host", apart),
        Section("Users and files", [_ids(seen, other), _sudo(seen), _system(seen)]),
    ]


@contextlib.contextmanager
def _bait() -> Iterator[_Bait]:
    with tempfile.NamedTemporaryFile(prefix="doctor-") as file, socket.socket() as listener:
        os.chmod(file.name, 0o644)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield _Bait(file.name, listener.getsockname()[1])


async def _look(box: Box, script: str, bait: _Bait, user: str) -> dict[str, str]:
    output = await run(box, script, user, bait.path, str(bait.port), CANARY)
    lines = (line.partition(": ") for line in output.splitlines())
    return {key: value.strip() for key, _, value in lines}


def _namespaces(seen: dict[str, str]) -> Finding:
    shared = [
        kind for kind in _KINDS if seen.get(f"ns-{kind}") in (None, os.readlink(f"/proc/self/ns/{kind}"))
    ]
    if shared:
        return Finding("namespaces", State.FAILED, f"shared with the host: {', '.join(shared)}")
    return Finding("namespaces", State.ON, f"its own: {', '.join(_KINDS)}")


def _nothing_of_the_host(seen: dict[str, str], title: str, key: str, what: str) -> Finding:
    if key in seen:
        return Finding(title, State.FAILED, f"{what} could be reached from inside")
    return Finding(title, State.ON, f"{what} could not be reached from inside")


def _processes(seen: dict[str, str]) -> Finding:
    count = int(seen.get("processes", _WITHOUT_BOUND))
    if count > 10:
        return Finding("processes", State.FAILED, f"{count} processes are visible from inside")
    return Finding("processes", State.ON, "only its own are visible from inside")


def _descriptors(seen: dict[str, str]) -> Finding:
    extra = int(seen.get("descriptors", _WITHOUT_BOUND))
    if extra > 0:
        return Finding("descriptors", State.FAILED, "a command inherits more than its three streams")
    return Finding("descriptors", State.ON, "a command inherits its three streams and nothing else")


def _seccomp(seen: dict[str, str]) -> Finding:
    if seen.get("Seccomp") != "2" or "namespaces" in seen:
        return Finding("system call filter", State.FAILED, "it is not in force")
    return Finding(
        "system call filter", State.ON, "no mounts, namespaces, modules, BPF, io_uring, key rings, clocks"
    )


def _capabilities(seen: dict[str, str]) -> Finding:
    held = int(seen.get("CapBnd", "-1"), 16)
    found = [name for number, name in _DANGEROUS.items() if held >> number & 1]
    if found:
        return Finding("capabilities", State.FAILED, f"its root can have {', '.join(found)}")
    return Finding("capabilities", State.ON, f"its root lacks {', '.join(_DANGEROUS.values())} and more")


def _ids(seen: dict[str, str], other: dict[str, str]) -> Finding:
    size = int(seen.get("ids", "0 1").split()[1])
    if size == 1:
        return Finding(
            "user ids",
            State.PARTLY,
            "one: `user` and `root` are two names of it, and it is yours, so nothing keeps them apart",
            newuidmap()
            if os.geteuid() != 0
            else "allow the server more ids, or run it outside of a container",
        )
    if other.get("ids") == seen["ids"]:
        return Finding(
            "user ids",
            State.PARTLY,
            f"{size}, but all sandboxes have the same",
            "give this user 65536 ids for each sandbox in /etc/subuid and /etc/subgid",
        )
    return Finding("user ids", State.ON, f"{size} for each sandbox, nobody else's")


def _sudo(seen: dict[str, str]) -> Finding:
    uid, _, path = seen.get("sudo", "").partition(" ")
    if uid != "0":
        return Finding("sudo", State.FAILED, "`sudo` does not lead to root")
    if path.startswith("/usr/local/"):
        return Finding(
            "sudo", State.PARTLY, "a stand-in of ours: the host has no sudo, or it can't be setuid in here"
        )
    return Finding("sudo", State.ON, "the host's own, without a password")


def _system(seen: dict[str, str]) -> Finding:
    if "system" in seen:
        return Finding(
            "system files", State.ON, "its root may change all of /usr; the host's stay as they are"
        )
    return Finding(
        "system files",
        State.PARTLY,
        "read-only: packages can't be installed in /usr, but for one user or in a venv they can",
        "run the server as root on Linux 5.19 or later, or use a template",
    )
