"""Starting a program in a box: from the agent's fork to the program's first instruction."""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import resource
import signal
import termios
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from sandbox_local.isolation import syscalls, users
from sandbox_local.isolation.errors import MissingDirectory
from sandbox_local.isolation.ids import Ids
from sandbox_local.isolation.inside import seccomp
from sandbox_local.isolation.inside.standing import Standing
from sandbox_local.isolation.inside.tags import Tag
from sandbox_local.isolation.users import User

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NO_CORE = 1  # unlike 0 it also keeps a core handler of the host from being started
_OPEN_FILES = 65536
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_STARTED = b"."
_NO_DIRECTORY = b"D"
_FAILED = b"E"


class Program(NamedTuple):
    """What to start.

    Attributes:
        argv: Program and arguments.
        env: All variables; the program is looked up in their PATH.
        user: Whom it runs as.
        cwd: The path of its working directory, or a descriptor of it.
        stdio: Descriptors of standard input, output and error.
        tag: Its mark.
        terminal: Whether the streams are a terminal that is to control it.
    """

    argv: list[str]
    env: dict[str, str]
    user: User
    cwd: str | int
    stdio: Sequence[int]
    tag: Tag
    terminal: bool


class Spawner:
    """Starts programs in the box of this process."""

    def __init__(self, ids: Ids, processes: int, data_bytes: int, standing: Standing) -> None:
        """Get ready.

        Args:
            ids: The ids of the box.
            processes: Bound of the processes of each user.
            data_bytes: Bound of the data of each process, or 0 for none.
            standing: This process's.
        """
        self._standing = standing
        self._one_id = ids.size == 1
        self._filter = seccomp.command_filter()
        self._limits = limits(processes, data_bytes)

    def start(self, program: Program) -> tuple[int, int]:
        """Fork, and let the child make its way to the program.

        Returns:
            The child's process id, and a descriptor that is readable when `outcome` can tell how it went.

        Raises:
            OSError: The box may have no more processes or descriptors.
        """
        report, told = os.pipe()
        try:
            with self._standing.of_commands():
                pid = os.fork()
                if pid == 0:
                    self._become(program, told)
        except OSError:
            os.close(report)
            raise
        finally:
            os.close(told)
        return pid, report

    def confine(self) -> None:
        """Take from this process, a fork of the agent, what no program in the box has either."""
        syscalls.load_seccomp(self._filter)
        syscalls.drop_unbounded_capabilities()

    def _become(self, program: Program, told: int) -> NoReturn:
        try:
            try:
                self._prepare(program)
            except _NoDirectory as error:
                os.write(told, _NO_DIRECTORY + b"%d" % (error.errno or 0))
                os._exit(1)
            except OSError as error:
                os.write(told, _FAILED + b"%d" % (error.errno or 0))
                os._exit(1)
            os.write(told, _STARTED)
            _execute(program.argv, program.env)
        finally:
            os._exit(1)

    def _prepare(self, program: Program) -> None:
        self._standing.fall_in()
        os.setsid()
        for target, source in enumerate(program.stdio):
            os.dup2(source, target)
        if program.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self._keep_streams_only()
        for kind, values in self._limits:
            resource.setrlimit(kind, values)
        program.tag.put_on()
        self._assume(program.user)
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        try:
            os.chdir(program.cwd)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _NoDirectory(error.errno, error.strerror) from error

    def _keep_streams_only(self) -> None:
        """See to it that the program inherits standard input, output and error, and no more."""
        syscalls.close_on_exec()

    def _assume(self, user: User) -> None:
        """Load the filter, then become the user: the first needs root."""
        if not self._one_id:
            syscalls.load_seccomp(self._filter)
            become(user)
            return
        if user.uid:
            # Outside this box there is but one id; a namespace more lets it look like this user's.
            syscalls.set_dumpable(True)
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            _write("/proc/self/uid_map", b"%d 0 1" % user.uid)
            _write("/proc/self/gid_map", b"%d 0 1" % user.gid)
        syscalls.load_seccomp(self._filter)


def become(user: User) -> None:
    """Let this process be a user."""
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def place(user: str, envs: dict[str, str], cwd: str) -> tuple[User, dict[str, str], str]:
    """Who a command runs as, with which variables, and where, as `base.Command` says it.

    Raises:
        UnknownUser: There is no such user.
    """
    who = users.find(user)
    env = {"PATH": PATH, "HOME": who.home, "USER": who.name, "LOGNAME": who.name, **envs}
    at_home = cwd == "~" or cwd.startswith("~/")
    return who, env, posixpath.join(who.home, cwd[1:].lstrip("/") if at_home else cwd)


def outcome(report: int) -> None:
    """Take from the descriptor of `Spawner.start` how the start went; returns if the program is about to run.

    Raises:
        MissingDirectory: There is no such working directory.
        OSError: The user may not enter it, or the box may have no more processes.
    """
    told = os.read(report, 16)
    if told == _STARTED:
        return
    number = int(told[1:] or errno.EAGAIN)
    if told[:1] == _NO_DIRECTORY:
        raise MissingDirectory(os.strerror(number))
    raise OSError(number, os.strerror(number))


def limits(processes: int, data_bytes: int) -> list[tuple[int, tuple[int, int]]]:
    """The resource limits of every program; see `Spawner`."""
    found = [
        _limit(resource.RLIMIT_CORE, _NO_CORE),
        _limit(resource.RLIMIT_NOFILE, _OPEN_FILES),
        _limit(resource.RLIMIT_NPROC, processes),
    ]
    if data_bytes:
        found.append(_limit(resource.RLIMIT_DATA, data_bytes))
    return found


class _NoDirectory(OSError):
    pass


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Become the program, or write why not and exit, both as a shell would."""
    name = argv[0]
    paths = [name]
    if "/" not in name:
        paths = [f"{directory or '.'}/{name}" for directory in env.get("PATH", PATH).split(":") if name]
    failure = errno.ENOENT
    for path in paths:
        number = _try(path, argv, env)
        if number == errno.ENOEXEC:  # a script without a first line that says for whom
            number = _try("/bin/sh", ["sh", path, *argv[1:]], env)
        if failure == errno.ENOENT and number != errno.ENOTDIR:
            failure = number
    reason = os.strerror(failure)
    if failure == errno.ENOENT and "/" not in name:
        reason = "command not found"
    os.write(2, os.fsencode(f"{name}: {reason}\n"))
    os._exit(_NOT_FOUND if failure == errno.ENOENT else _NOT_EXECUTABLE)


def _try(path: str, argv: list[str], env: dict[str, str]) -> int:
    try:
        os.execve(path, argv, env)
    except OSError as error:
        return error.errno or errno.ENOENT


def _limit(kind: int, value: int) -> tuple[int, tuple[int, int]]:
    hard = resource.getrlimit(kind)[1]
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return kind, (bound, bound)


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
