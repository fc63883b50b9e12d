"""What code inside a sandbox can reach: of the agent, of the host, of the kernel. Only its own.

`probes.py` tries; here stands what must come of it, under both kinds of servers, for both users.
"""

from __future__ import annotations

import pytest

from tests.security.servers import KINDS, USERS, answers, on_server

_DENIED = {"EACCES", "EPERM"}
_DEVICES = "full,null,ptmx,pts,random,shm,tty,urandom,zero"

_AGENT = {
    **{f"list /proc/1/{name}": _DENIED for name in ("root", "cwd", "fd", "map_files", "task/1/root")},
    **{
        f"read /proc/1/{name}": _DENIED
        for name in ("environ", "mem", "exe", "maps", "auxv", "stack", "syscall", "ns/mnt", "fd/3")
    },
    **{f"write /proc/1/{name}": _DENIED for name in ("mem", "exe", "oom_score_adj", "uid_map")},
    "trace the agent": {"EPERM"},
    "read the agent's memory": {"EPERM"},
    "write the agent's memory": {"EPERM"},
    "compare with the agent": {"EPERM", "ENOSYS"},
    "take the agent's descriptor": {"EPERM"},
}
_HOST = {
    "host file": {"ENOENT"},
    "host file by ..": {"ENOENT"},
    "host process": {"ESRCH"},
    "host port": {"ECONNREFUSED"},
    "host abstract socket": {"ECONNREFUSED"},
    "root of another process": {"none"},
    "out of a chroot": {"EPERM", "at home in a box"},
    "environment": {"HOME,LC_CTYPE,LOGNAME,PATH,USER", "HOME,LOGNAME,PATH,USER"},
    "descriptors": {"0,1,2"},
    "processes": {"few"},
    "control groups": {"own"},
    "write a control group": {"ENOENT", *_DENIED},
    "/sys": {""},
    "core size": {"(1, 1)"},
    "secret in mountinfo": {"none"},
}
_MACHINE = {
    **{
        f"write sysctl {name}": {*_DENIED, "ENOENT"}
        for name in (
            *("kernel/core_pattern", "kernel/printk", "kernel/ns_last_pid", "vm/drop_caches"),
            *("fs/suid_dumpable", "net/ipv4/ip_forward", "user/max_inotify_instances", "kernel/modprobe"),
        )
    },
    **{
        f"read /proc/{name}": {"empty", *_DENIED}
        for name in ("kcore", "keys", "kallsyms", "timer_list", "sched_debug", "latency_stats")
    },
    "sysrq": {"null", "ENOENT"},
    "make a device": {"EPERM"},
    "devices": {_DEVICES},
}
_CALLS = {
    **{
        f"call {name}": {"EPERM"}
        for name in (
            *("unshare user", "unshare mount", "clone user", "clone net", "setns", "mount", "umount2"),
            *("pivot_root", "fsopen", "open_tree", "move_mount", "mount_setattr", "open_by_handle_at"),
            *("io_uring_setup", "bpf", "perf_event_open", "keyctl", "add_key", "request_key"),
            *("userfaultfd", "fanotify_init", "init_module", "kexec_load", "settimeofday", "quotactl"),
            "syslog",
        )
    },
    "call clone3": {"ENOSYS"},
    "call by int 0x80": {"ENOSYS", "killed by 11"},  # the latter where the kernel knows no 32-bit programs
    "call by x32": {"ENOSYS"},
    **{
        f"socket {family}": {"EAFNOSUPPORT"}
        for family in ("vsock", "alg", "packet", "xdp", "bluetooth", "tipc")
    },
    "socket pair tipc": {"EAFNOSUPPORT"},
    "socket raw": {"EPERM"},
    "socket ordinary": {"works"},
    "interfaces": {"lo"},
}
_EXPECTED = {**_AGENT, **_HOST, **_MACHINE, **_CALLS}
_NOT_EVERYWHERE = ("read /proc/", "call by ")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", _EXPECTED)
def test_doors_are_shut(kind: str, user: str, door: str) -> None:
    told = answers(kind)[user]
    if door not in told and door.startswith(_NOT_EVERYWHERE):
        pytest.skip(f"this machine has no such door: {door}")
    assert told[door] in _EXPECTED[door]


def test_every_probe_is_judged() -> None:
    """A probe that is added without a word on what must come of it would test nothing."""
    assert set(answers(KINDS[0])["root"]) <= set(_EXPECTED)


_HELPERS = """
async def main(backend):
    box = await backend.create(BoxSpec("box"))
    await box.files("stat", user="user", path="/")
    _, (watch,) = await box.files("watch", user="user", path="/tmp", recursive=False, include_entry=False)
    script = (
        "for p in $(ls /proc | grep -E '^[0-9]+$'); do"
        " [ $p != 1 ] && [ $p != $$ ] && cat /proc/$p/status; done"
    )
    told = (await run(box, "/bin/bash", "-c", script, user="root"))[1]
    os.close(watch)
    wanted = ("Name", "CapEff", "CapPrm", "Seccomp:")
    return [line.split() for line in told.splitlines() if line.startswith(wanted)]

start(main)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_helpers_have_no_more_rights_than_a_command(kind: str) -> None:
    """Whoever takes over the process that does file operations gains nothing."""
    told = [line for line in on_server(kind, _HELPERS) if line]
    helpers = [told[at + 1 : at + 4] for at, line in enumerate(told) if line == ["Name:", "sandbox"]]
    assert len(helpers) == 2
    for helper in helpers:
        assert helper == [["CapPrm:", "00000000a80cc5ff"], ["CapEff:", "00000000a80cc5ff"], ["Seccomp:", "2"]]


_EXECUTED = r'''
SPY = """#!/usr/bin/python3
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
open("/tmp/told", "w").write(str([libc.unshare(0x10000000), ctypes.get_errno()]))
"""
async def main(backend):
    box = await backend.create(BoxSpec("box"))
    # What the file worker executes may be anybody's: here a program of the box in place of mv.
    set_up = (
        "rm -rf /bin; mkdir /bin; cp -d /usr/bin/bash /usr/bin/sh /usr/bin/dash /bin/ 2>/dev/null;"
        "printf %s \"$0\" > /bin/mv; chmod 755 /bin/mv; touch /dev/shm/x; echo ok"
    )
    told = await run(box, "/usr/bin/bash", "-c", set_up, SPY, user="root")
    assert told[1] == "ok\n", told
    try:
        await box.files("move", user="root", source="/dev/shm/x", destination="/tmp/x")
    except OSError:
        pass
    return (await run(box, "/usr/bin/cat", "/tmp/told", user="root"))[1:]

start(main)
'''


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_helper_executes_is_under_the_filter(kind: str) -> None:
    out, err = on_server(kind, _EXECUTED)
    assert out == "[-1, 1]", err


_REPLACED = r"""
async def main(backend):
    box = await backend.create(BoxSpec("box"))
    spoilt = (
        "echo 'user:x:0:0::/root:/bin/false' > /etc/passwd; echo /tmp/evil.so > /etc/ld.so.preload;"
        "printf junk > /tmp/evil.so; rm -f /etc/nsswitch.conf; ln -s /tmp/none /etc/nsswitch.conf; echo ok"
    )
    told = await run(box, "/bin/bash", "-c", spoilt, user="root")
    assert told[1] == "ok\n", told
    entry = (await box.files("stat", user="user", path="/tmp/evil.so"))[0]["entry"]
    look = "id -u; grep -c evil /proc/[0-9]*/maps | grep -v :0; true"
    still = await run(box, "/bin/bash", "-c", look, user="user")
    return [entry["size"], still[1], (await run(box, "/bin/echo", "alive", user="user"))[1]]

start(main)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_replaced_accounts_and_libraries_reach_no_helper(kind: str) -> None:
    """The agent and its helpers load nothing of the box: no library, no module, no name service."""
    assert on_server(kind, _REPLACED) == [4, "0\n", "alive\n"]
