"""sudo for sandboxes in which the system's own can't work: nobody is asked for a password.

Copied into the sandboxes, with `wire`, this runs there as a program of its own. It asks the sandbox's first
process to start the command as the other user, with the caller's standard streams and working directory; at a
terminal it gives the command a terminal of its own and passes on what is typed and written.
"""

from __future__ import annotations

import fcntl
import getopt
import grp
import os
import pty
import pwd
import select
import shlex
import signal
import socket
import termios
import tty
from collections.abc import Sequence
from typing import Any, NoReturn

from sandbox_local.isolation import wire

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("COLORS", "DISPLAY", "LANG", "LANGUAGE", "LS_COLORS", "TERM", "TZ", "XAUTHORITY")
_FORWARDED = (
    *(signal.SIGALRM, signal.SIGCONT, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGTSTP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
)
_USAGE = "usage: sudo [-bEHiknSsv] [-D directory] [-g group] [-u user] [VAR=value] [command [arg ...]]"
_LONG_OPTIONS = {
    "chdir=": "-D",
    "group=": "-g",
    "help": "-h",
    "list": "-l",
    "login": "-i",
    "non-interactive": "-n",
    "prompt=": "-p",
    "remove-timestamp": "-K",
    "reset-timestamp": "-k",
    "set-home": "-H",
    "shell": "-s",
    "stdin": "-S",
    "user=": "-u",
    "validate": "-v",
    "version": "-V",
}


class Request:
    """What a command line asks for.

    Attributes:
        options: Short options with their values.
        kept: Names of variables to keep beside the usual ones, or None to keep all.
        assigned: Variables set on the command line.
        command: The command and its arguments.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """Read a command line.

        Raises:
            getopt.GetoptError: It is none of sudo's.
        """
        self.kept: list[str] | None = []
        arguments = list(arguments)
        for place, argument in enumerate(arguments):
            if not argument.startswith("-") or argument == "--":
                break
            if argument == "--preserve-env":
                arguments[place] = "-E"
            elif argument.startswith("--preserve-env="):
                self.kept += argument.partition("=")[2].split(",")
                arguments[place] = "-n"
        found, rest = getopt.getopt(arguments, "D:EHKSVbg:hiklnp:su:v", [*_LONG_OPTIONS])
        short = {name.rstrip("="): option for name, option in _LONG_OPTIONS.items()}
        self.options = {short.get(name.lstrip("-"), name): value for name, value in found}
        if "-E" in self.options:
            self.kept = None
        self.assigned: dict[str, str] = {}
        while rest and "=" in rest[0].partition("/")[0]:
            name, _, value = rest.pop(0).partition("=")
            self.assigned[name] = value
        self.command = rest

    def argv(self, shell: str) -> list[str]:
        """The program and its arguments.

        Args:
            shell: The target's login shell.
        """
        if "-i" in self.options:
            start = [shell, "-l"]
        elif "-s" in self.options:
            start = [os.environ.get("SHELL") or shell]
        else:
            return self.command
        return [*start, "-c", shlex.join(self.command)] if self.command else start

    def environment(self, caller: str, target: pwd.struct_passwd) -> dict[str, str]:
        """The variables of the command.

        Args:
            caller: The name of the user who asks.
            target: The user whom the command runs as.
        """
        with open("/proc/self/environ", "rb") as file:  # unlike `os.environ`, without what Python has added
            pairs = [os.fsdecode(pair).partition("=") for pair in file.read().split(b"\0") if pair]
        env = {
            name: value
            for name, _, value in pairs
            if self.kept is None or name in _KEPT or name in self.kept or name.startswith("LC_")
        }
        if self.kept is not None or "-H" in self.options:
            env["HOME"] = target.pw_dir
        if self.kept is not None:
            env |= {"MAIL": f"/var/mail/{target.pw_name}", "SHELL": target.pw_shell}
        env |= {"LOGNAME": target.pw_name, "PATH": _PATH, "USER": target.pw_name}
        env |= {"SUDO_COMMAND": " ".join(self.command), "SUDO_USER": caller}
        env |= {"SUDO_UID": str(os.getuid()), "SUDO_GID": str(os.getgid())}
        return env | self.assigned


class Terminal:
    """A terminal for the command, joined to the caller's."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self._caller = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        self._saved = termios.tcgetattr(0)
        termios.tcsetattr(self.slave, termios.TCSANOW, self._saved)
        self.resize()
        tty.setraw(0)

    def resize(self) -> None:
        """Give it the size of the caller's."""
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, size)

    def read(self) -> bool:
        """Pass on what the command wrote; False at the end."""
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        _write(self._caller, data)
        return bool(data)

    def type(self) -> bool:
        """Pass on what the caller typed; False at the end."""
        data = os.read(0, 65536)
        _write(self.master, data)
        return bool(data)

    def close(self) -> None:
        """Pass on the rest, and leave the caller's terminal as it was."""
        os.close(self.slave)
        while select.select([self.master], [], [], 0)[0] and self.read():
            pass
        termios.tcsetattr(0, termios.TCSADRAIN, self._saved)


def run(path: str, argv: list[str], env: dict[str, str], user: str, gid: int | None, cwd: int) -> int:
    """Have a command run by whoever listens at `path`.

    Returns:
        The exit code; or it dies of the signal that the command died of.

    Raises:
        OSError: The sandbox's first process does not answer.
    """
    signals, wake = socket.socketpair()
    for end in (signals, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        terminal = Terminal() if _at_terminal() else None
        try:
            stdio = [terminal.slave if terminal and os.isatty(fd) else fd for fd in (0, 1, 2)]
            arguments = {"argv": argv, "env": env, "user": user, "gid": gid, "terminal": terminal is not None}
            # Before the command can run, or a signal that comes at its very start would end only this.
            for number in _FORWARDED:
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, lambda *_: None)
            wire.send(sock, {"id": 1, "op": "run", "args": arguments}, [*stdio, cwd])
            event = _attend(sock, signals, terminal)
        finally:
            if terminal:
                terminal.close()
    if "error" in event:
        return _refuse(event["error"]["message"])
    if event["signal"]:
        _die(event["signal"])
    return int(event["code"])


def _attend(sock: socket.socket, signals: socket.socket, terminal: Terminal | None) -> dict[str, Any]:
    """Pass signals and the terminal's data on until the command has ended; returns how it did."""
    sources: list[socket.socket | int] = [sock, *([0, terminal.master] if terminal else [])]
    while True:
        for source in select.select(sources, [], [])[0]:
            if source is sock:
                message, _ = wire.recv(sock)
                if "ok" not in message:
                    return message
                sources.append(signals)  # what came before the command had started waits until now
            elif source is signals:
                for number in signals.recv(4096):
                    _forward(sock, number, terminal)
            elif terminal and not (terminal.type() if source == 0 else terminal.read()):
                sources.remove(source)


def _forward(sock: socket.socket, number: int, terminal: Terminal | None) -> None:
    if number == signal.SIGWINCH and terminal:
        terminal.resize()
    elif number == signal.SIGTSTP:
        wire.send(sock, {"op": "signal", "args": {"signum": int(signal.SIGSTOP)}})
        os.kill(os.getpid(), signal.SIGSTOP)
    elif number in _FORWARDED:
        wire.send(sock, {"op": "signal", "args": {"signum": number}})


def _at_terminal() -> bool:
    """Whether the caller's terminal is this process's to use."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _die(number: int) -> NoReturn:
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def main(path: str, arguments: Sequence[str]) -> int:
    """Be sudo.

    Args:
        path: Where the sandbox's first process listens.
        arguments: The command line.

    Returns:
        The exit code.
    """
    while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) < 3:
        pass  # streams that the caller has closed
    os.close(fd)
    try:
        request = Request(arguments)
        options = request.options
        caller = pwd.getpwuid(os.getuid()).pw_name
        target = pwd.getpwnam(options.get("-u", "root"))
        gid = grp.getgrnam(options["-g"]).gr_gid if "-g" in options else None
        directory = options.get("-D", target.pw_dir if "-i" in options else ".")
        cwd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    except KeyError:
        return _refuse("there is no such user or group")
    except (getopt.GetoptError, OSError) as error:
        return _refuse(f"{error}\n{_USAGE}")
    argv = request.argv(target.pw_shell)
    if options.keys() & {"-V", "-h", "-l"}:
        _write(1, os.fsencode(f"{_USAGE}\n{caller} may do everything as everybody, without a password\n"))
        return 0
    if not argv:
        return 0 if options.keys() & {"-K", "-k", "-v"} else _refuse(_USAGE)
    if "-b" in options and os.fork():
        return 0
    try:
        return run(path, argv, request.environment(caller, target), target.pw_name, gid, cwd)
    except (OSError, EOFError) as error:
        return _refuse(f"the sandbox does not answer: {error}")


def _refuse(reason: str) -> int:
    _write(2, os.fsencode(f"sudo: {reason}\n"))
    return 1
