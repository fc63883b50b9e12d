"""Why a machine refuses isolated environments, and what to do about it, in words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sandbox_local.isolation.errors import IsolationError

_CONTAINER = (
    "if this is a container, run the server outside of it, or start it with `--privileged`, or with "
    + " ".join(f"`--security-opt {name}=unconfined`" for name in ("seccomp", "apparmor", "systempaths"))
)


def explain(step: str, number: int | None, message: str) -> IsolationError:
    """The error for a start that failed.

    Args:
        step: What was being done, as the zygote calls it.
        number: The errno that the kernel gave.
        message: The system call and what it was about.
    """
    cause, remedy = _cause(number)
    return IsolationError(
        f"This machine cannot make isolated sandboxes: {step} failed ({message}). "
        f"Cause: {cause}. Remedy: {remedy}. Nothing is ever run without isolation."
    )


def _cause(number: int | None) -> tuple[str, str]:
    if os.uname().machine not in ("x86_64", "aarch64"):
        return f"a {os.uname().machine} machine is not supported", "use an x86_64 or an aarch64 one"
    if _sysctl("user/max_user_namespaces") == "0":
        return "the kernel may make no user namespaces", "`sysctl -w user.max_user_namespaces=10000` as root"
    if os.geteuid() != 0 and _sysctl("kernel/unprivileged_userns_clone") == "0":
        return (
            "user namespaces are reserved to root",
            "`sysctl -w kernel.unprivileged_userns_clone=1` as root, or run the server as root",
        )
    if os.geteuid() != 0 and _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor keeps unprivileged programs from using user namespaces (Ubuntu 23.10 and later)",
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root, an AppArmor profile with "
            "`userns,` for this Python, or run the server as root",
        )
    if number in (errno.EPERM, errno.EACCES) and _filtered():
        return "a seccomp filter, as of a container, forbids it", _CONTAINER
    if number in (errno.EPERM, errno.EACCES):
        return "the kernel, or a security module of it, forbids it", _CONTAINER
    if number in (errno.ENOSPC, errno.EUSERS):
        return (
            "a limit on namespaces is reached",
            "raise the limits in /proc/sys/user, or end other programs that use namespaces",
        )
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENODEV):
        return f"Linux {os.uname().release} lacks what is needed", "use Linux 5.12 or later, with overlayfs"
    return "unknown", _CONTAINER


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _filtered() -> bool:
    """Whether a seccomp filter is on this process."""
    try:
        return "\nSeccomp:\t2" in Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return False
