"""Getting the right to make namespaces: as the host's root, or as the root of a user namespace of our own."""

from __future__ import annotations

import os
import pwd

from sandbox_local.isolation import syscalls

_NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID
_DIRECTORIES = ("/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin")


def enter_namespaces() -> bool:
    """Move into a new mount namespace, and have children in a new PID namespace, as its root.

    Returns:
        Whether the user namespace is a new one, too.

    Raises:
        OSError: The host does not allow it.
    """
    if os.geteuid() == 0:
        try:
            syscalls.unshare(_NAMESPACES)
        except PermissionError:
            pass  # root by name only, as in most containers
        else:
            _leave_groups()
            return False
    _enter_user_namespace(os.geteuid(), os.getegid())
    syscalls.unshare(_NAMESPACES)
    return True


def share_watches() -> None:
    """Leave half of the inotify instances and watches of this user to the user; as root of a new namespace.

    Needs a `/proc` of this process's PID namespace.
    """
    for kind in ("instances", "watches"):
        with open(f"/proc/sys/fs/inotify/max_user_{kind}", encoding="ascii") as file:
            most = int(file.read())
        _write(f"/proc/sys/user/max_inotify_{kind}", str(most // 2))


def _enter_user_namespace(uid: int, gid: int) -> None:
    commands = _mapping_commands(os.getpid(), uid, gid)
    if not commands:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    else:
        # The mapping has to be made from outside, by programs that may give away ids.
        told, tell = os.pipe()
        mapper = os.fork()
        if mapper == 0:
            os.close(tell)
            ready = os.read(told, 1)
            done = ready and all(os.spawnv(os.P_WAIT, command[0], command) == 0 for command in commands)
            os._exit(0 if done else 1)
        try:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(tell, b"\0")
        finally:
            os.close(tell)
            os.close(told)
            status = os.waitpid(mapper, 0)[1]
        if status:
            raise PermissionError(1, f"{commands[0][0]} or {commands[1][0]} failed")
        _leave_groups()
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _leave_groups() -> None:
    with open("/proc/self/setgroups", encoding="ascii") as file:
        allowed = file.read().strip() == "allow"
    if allowed:  # not in a user namespace that has one group only, where there is none to leave
        os.setgroups([])


def _mapping_commands(pid: int, uid: int, gid: int) -> list[list[str]]:
    """The commands that give a process the ids set aside for this user; none if there are none."""
    commands = []
    for program, path, own in (("newuidmap", "/etc/subuid", uid), ("newgidmap", "/etc/subgid", gid)):
        executable = _find(program)
        subordinate = _subordinate(path, uid)
        if not executable or not subordinate:
            return []
        commands.append([executable, str(pid), "0", str(own), "1", "1", *subordinate])
    return commands


def _find(program: str) -> str | None:
    paths = (f"{directory}/{program}" for directory in _DIRECTORIES)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def _subordinate(path: str, uid: int) -> tuple[str, str] | None:
    """The first and the number of the ids that a user may give to namespaces."""
    names = {str(uid)}
    try:
        names.add(pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[0] in names:
                    return fields[1], fields[2]
    except OSError:
        pass
    return None


def _write(path: str, content: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(content)
