"""The filter of system calls, judged as the kernel judges it: both architectures, every call it denies."""

from __future__ import annotations

import errno

import pytest

from sandbox_local.isolation.inside import seccomp

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOWED = 0x7FFF0000
_DENIED = {  # numbers on x86_64 and aarch64, from the kernel's tables
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "syslog": (103, 116),
}


def _verdict(machine: str, number: int, argument: int = 0, audit: int | None = None) -> int:
    """What the filter returns for a call; runs its instructions as the kernel does."""
    data = {0: number, 4: _AUDIT[machine] if audit is None else audit, 16: argument & 0xFFFFFFFF}
    program = seccomp._instructions(machine)
    at = register = 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x20:
            register = data[value]
        elif code == 0x06:
            return value
        else:
            holds = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[code]
            at += if_true if holds else if_false


def _error(number: int) -> int:
    return 0x00050000 | number


@pytest.mark.parametrize("name", _DENIED)
def test_a_call_that_no_program_needs_is_denied(name: str) -> None:
    for machine, number in zip(_AUDIT, _DENIED[name], strict=True):
        assert _verdict(machine, number) == _error(errno.EPERM)


@pytest.mark.parametrize("machine", _AUDIT)
def test_ordinary_calls_pass_and_other_numbers_do_not(machine: str) -> None:
    clone, sockets = {"x86_64": (56, (41, 53)), "aarch64": (220, (198, 199))}[machine]
    assert _verdict(machine, 0) == _verdict(machine, clone, 17) == _ALLOWED
    for flag in (0x02000000, 0x08000000, 0x40000000, 0x00020000, 0x20000000, 0x10000000, 0x04000000):
        assert _verdict(machine, clone, flag | 17) == _error(errno.EPERM)
    for number in sockets:
        passing = {family for family in range(64) if _verdict(machine, number, family) == _ALLOWED}
        assert passing == {1, 2, 10, 16}
        assert _verdict(machine, number, 40) == _error(errno.EAFNOSUPPORT)
    assert _verdict(machine, 435) == _error(errno.ENOSYS)
    assert _verdict(machine, 0x40000000 + 39) == _error(errno.ENOSYS)
    assert _verdict(machine, 0, audit=0x40000003) == _error(errno.ENOSYS), "32-bit programs"
