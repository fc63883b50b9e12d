"""The Linux system calls that Python's standard library does not offer, or not yet in 3.10."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct

CLONE_NEWCGROUP = 0x02000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWUTS = 0x04000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_MACHINE = os.uname().machine
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}
_PIDFD_SEND_SIGNAL = 424  # this and all later numbers are the same on every architecture
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_PIDFD_OPEN = 434
_CLONE3 = 435
_CLOSE_RANGE = 436
_MOUNT_SETATTR = 442

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = 0o2000000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_IDMAP = 0x00100000
_CLOSE_RANGE_CLOEXEC = 4
_MAX_FD = 0x7FFFFFFF

_CLONE_INTO_CGROUP = 0x200000000

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 4
_SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION = 0x20080522

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)
_locked_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return _MACHINE in _PIVOT_ROOT


def reset_signal(number: int) -> None:
    """Give a signal its default action, even one that the C library keeps for itself and so cannot be set."""
    default = bytes(32)  # struct kernel_sigaction: SIG_DFL, no flags, no restorer, empty mask
    _check(_libc.syscall(_RT_SIGACTION[_MACHINE], number, default, None, 8), "rt_sigaction")


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Move this process into the namespace that a descriptor stands for."""
    _check(_libc.setns(fd, kind), "setns")


def fork_into(group_fd: int) -> int:
    """Fork a process with one thread into a control group of version 2; returns as `os.fork` does.

    What Python does around a fork is left out: it is about other threads.
    """
    no_stack = (0, 0, 0, 0, 0)
    arguments = struct.pack("11Q", _CLONE_INTO_CGROUP, 0, 0, 0, int(signal.SIGCHLD), *no_stack, group_fd)
    return _check(_locked_libc.syscall(_CLONE3, arguments, len(arguments)), "clone3")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system, or with MS_BIND a directory or file."""
    done = _libc.mount(
        os.fsencode(source), os.fsencode(target), os.fsencode(kind), flags, os.fsencode(data) or None
    )
    _check(done, f"mount {kind or source}", target)


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """Show a directory or file at a second place."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def set_idmap(path: str, userns_fd: int) -> None:
    """Replace the mount at `path`, in this mount namespace, by one whose owners are mapped as in a user
    namespace."""
    fd = _open_tree(path)
    try:
        attributes = struct.pack("QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, userns_fd)
        _set_attributes(fd, "", _AT_EMPTY_PATH, attributes)
        done = _libc.syscall(_MOVE_MOUNT, fd, b"", _AT_FDCWD, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH)
        _check(done, "move_mount", path)
    finally:
        os.close(fd)


def set_readonly(path: str) -> None:
    """Let nothing be changed through the mount at `path` and the mounts below it."""
    _set_attributes(_AT_FDCWD, path, _AT_RECURSIVE, struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0))


def pivot_root(path: str) -> None:
    """Make the mount at `path` the root of this mount namespace, and forget the old one."""
    os.chdir(path)
    _check(_libc.syscall(_PIVOT_ROOT[_MACHINE], b".", b"."), "pivot_root", path)
    _check(_libc.umount2(b".", MNT_DETACH), "umount2", path)
    os.chdir("/")


def set_dumpable(dumpable: bool) -> None:
    """Whether others of this user may trace this process and read its memory, environment and descriptors."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0), "prctl")


def bound_capabilities(kept: frozenset[int]) -> None:
    """Let no program that this process's children execute have other capabilities than these."""
    for capability in range(64):
        if capability not in kept and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            if ctypes.get_errno() == errno.EINVAL:
                return  # the kernel has no more
            _check(-1, "prctl")


def drop_unbounded_capabilities() -> None:
    """Have no capability that a program which this process executes could not have."""
    kept = sum(1 << number for number in range(64) if _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    done = _libc.capset(header, struct.pack("6I", low, low, 0, high, high, 0))
    _check(done, "capset")


def change_user(uid: int) -> None:
    """Become another user and group, and keep the capabilities."""
    _check(_libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl")
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def die_with_parent() -> None:
    """Have this process killed when its parent dies."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")


def set_title(title: str) -> None:
    """Change the name and the arguments that others see of this process."""
    name = title.encode()
    _check(_libc.prctl(_PR_SET_NAME, name, 0, 0, 0), "prctl")
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5), counted from the third
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, name, min(len(name), end - start - 1))


def load_seccomp(program: ctypes.Structure) -> None:
    """Load a seccomp filter; without NO_NEW_PRIVS, which needs CAP_SYS_ADMIN and lets sudo work."""
    done = _libc.syscall(_SECCOMP[_MACHINE], _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program))
    _check(done, "seccomp")


def close_all_but(*kept: int) -> None:
    """Close all descriptors but standard input, output, error, and these."""
    first = 3
    for fd in (*sorted(kept), _MAX_FD):
        if fd > first:
            _check(_libc.syscall(_CLOSE_RANGE, first, fd - 1, 0), "close_range")
        first = max(first, fd + 1)


def close_on_exec() -> None:
    """Let a program that is executed inherit standard input, output and error, and no more."""
    _check(_libc.syscall(_CLOSE_RANGE, 3, _MAX_FD, _CLOSE_RANGE_CLOEXEC), "close_range")


def pidfd_open(pid: int) -> int:
    """A descriptor that stands for a process, and never for another; some builds of Python lack theirs."""
    return _check(_libc.syscall(_PIDFD_OPEN, pid, 0), "pidfd_open")


def pidfd_send_signal(fd: int, signum: int) -> None:
    """Send a signal to the process that a descriptor stands for."""
    _check(_libc.syscall(_PIDFD_SEND_SIGNAL, fd, signum, None, 0), "pidfd_send_signal")


def loopback_up() -> None:
    """Switch on the loopback interface of this network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def _set_attributes(fd: int, path: str, flags: int, attributes: bytes) -> None:
    done = _libc.syscall(_MOUNT_SETATTR, fd, os.fsencode(path), flags, attributes, len(attributes))
    _check(done, "mount_setattr", path)


def _open_tree(path: str) -> int:
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    return _check(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags), "open_tree", path)


def _check(result: int, call: str, path: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        reason = f"{call}: {errno.errorcode.get(number, number)}, {os.strerror(number)}"
        raise OSError(number, reason, path or None)
    return result
