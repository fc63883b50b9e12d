"""What a box can see and do of what is not its own: nothing of the host, nothing of its siblings."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from sandbox_local.isolation.base import BoxSpec, Command, Limits
from tests.live.boxes import a_backend, a_box, in_loop, read_some, run, shell


def test_nothing_of_the_hosts_files_is_visible_but_its_programs(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of the host")
    places = [str(secret), *(f"{home}/{name}" for home in ("/root", "/home") for name in _listing(home))]
    places += ["/etc/ssh", "/etc/machine-id", "/etc/apt", "/sys/kernel", "/run/docker.sock", "/.dockerenv"]

    async def work() -> None:
        async with a_box() as box:
            listing = await run(
                box, "ls", "-A", "/", "/root", "/home", "/tmp", "/var/lib", "/opt", user="root"
            )
            assert listing.exit.code == 0
            found = await run(
                box, "sh", "-c", 'for p; do [ -e "$p" ] && echo "$p"; done; true', "sh", *places
            )
            assert found.stdout == ""
            shadow = await run(box, "cat", "/etc/shadow", user="root")
            assert shadow.stdout.startswith("root:*:"), "not the box's own"
            mounts = await run(box, "cat", "/proc/self/mountinfo", user="root")
            assert str(tmp_path) not in mounts.stdout
            assert os.getcwd() not in mounts.stdout

    in_loop(work())


def _listing(path: str) -> list[str]:
    own = {".bashrc", ".profile", "user"}
    return [name for name in os.listdir(path) if name not in own]


def test_processes_of_the_host_are_neither_visible_nor_within_reach() -> None:
    async def work() -> None:
        async with a_box() as box:
            seen = await shell(box, "ls /proc | grep -E '^[0-9]+$' | wc -l", user="root")
            assert int(seen.stdout) <= 5
            killed = await shell(box, f"kill -0 {os.getpid()}", user="root")
            assert killed.exit.code != 0
            title = await shell(box, "tr '\\0' ' ' < /proc/1/cmdline")
            assert title.stdout.split() == ["sandbox"]

    in_loop(work())


def test_the_environment_is_the_users_own_and_none_of_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2B_API_KEY", "a secret of the server")

    async def work() -> None:
        async with a_box() as box:
            env = await run(box, "/usr/bin/env", envs={"MINE": "a=b\nc"})
            assert sorted(env.stdout.split("\n")) == sorted(
                [
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOME=/home/user",
                    "USER=user",
                    "LOGNAME=user",
                    "MINE=a=b",
                    "c",
                    "",
                ]
            )
            environs = await shell(box, "cat /proc/1/environ", user="root")
            assert "Permission denied" in environs.stderr
            overridden = await shell(box, "echo $HOME $USER", envs={"HOME": "/tmp", "USER": "x"})
            assert overridden.stdout == "/tmp x\n"

    in_loop(work())


def test_loopback_and_abstract_sockets_are_the_boxs_own() -> None:
    abstract = f"\0isolation-test-{os.getpid()}"

    async def work(port: int) -> None:
        async with a_box() as box:
            script = (
                "import socket, sys\n"
                "for family, address in ((socket.AF_INET, ('127.0.0.1', int(sys.argv[1]))),"
                " (socket.AF_UNIX, '\\0' + sys.argv[2])):\n"
                "    s = socket.socket(family)\n"
                "    print(s.connect_ex(address) != 0)\n"
                "print([name for _, name in socket.if_nameindex()])\n"
            )
            tried = await run(box, "python3", "-c", script, str(port), abstract[1:], user="root")
            assert tried.stdout.splitlines() == ["True", "True", "['lo']"], tried.stderr

    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind(abstract)
        unix.listen()
        in_loop(work(tcp.getsockname()[1]))


def test_boxes_have_ids_files_ports_and_ipc_of_their_own() -> None:
    async def work() -> None:
        async with a_backend() as backend:
            one = await backend.create(BoxSpec("one", hostname="first"))
            two = await backend.create(BoxSpec("two", hostname="second"))
            outer = [(await shell(box, "cat /proc/self/uid_map")).stdout.split()[1] for box in (one, two)]
            if os.geteuid() == 0:
                assert outer[0] != outer[1]
            assert [(await run(box, "hostname")).stdout for box in (one, two)] == ["first\n", "second\n"]
            await shell(one, "echo x > /tmp/mine; echo y > /dev/shm/mine; ipcmk -M 100", user="root")
            seen = await shell(two, "ls /tmp /dev/shm; ipcs -m | grep -c '^0x'", user="root")
            assert "mine" not in seen.stdout
            assert seen.stdout.split()[-1] == "0"

    in_loop(work())


def test_the_agent_can_be_neither_read_traced_nor_killed_from_inside() -> None:
    async def work() -> None:
        async with a_box() as box:
            tried = await shell(
                box,
                "for f in exe mem environ maps fd/3 ns/net root; do"
                " head -c1 /proc/1/$f >/dev/null 2>&1 && echo read $f; done;"
                "kill -9 1; kill -STOP 1; kill -SEGV 1;"
                "python3 -c 'import ctypes; print(ctypes.CDLL(None).ptrace(16, 1, 0, 0))'",
                user="root",
            )
            assert tried.stdout == "-1\n"
            assert (await run(box, "true")).exit.code == 0

    in_loop(work())


@pytest.mark.parametrize("user", ["user", "root"])
def test_the_rights_of_a_boxs_root_do_not_reach_the_kernels_networking_and_administration(user: str) -> None:
    program = (
        "import socket\n"
        "status = dict(line.split(':\\t') for line in open('/proc/self/status') if '\\t' in line)\n"
        "print(status['CapBnd'].strip(), status['CapInh'].strip(), status['CapAmb'].strip())\n"
        "for arguments in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW, 1)):\n"
        "    try: socket.socket(*arguments)\n"
        "    except OSError as error: print(error.errno)\n"
    )

    async def work() -> None:
        async with a_box() as box:
            told = await run(box, "python3", "-c", program, user=user)
            bound = "00000000a80cc5ff" if user == "root" or os.geteuid() == 0 else told.stdout.split()[0]
            assert told.stdout.split() == [bound, "0" * 16, "0" * 16, "97", "1"], told.stderr
            assert (await shell(box, "ip link set lo mtu 1400", user=user)).exit.code != 0

    in_loop(work())


def test_devices_are_the_harmless_ones_and_no_more_can_be_made() -> None:
    async def work() -> None:
        async with a_box() as box:
            listing = await run(box, "ls", "/dev")
            assert set(listing.stdout.split()) == {
                *("fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"),
                *("urandom", "zero"),
            }
            made = await shell(box, "mknod /tmp/disk b 254 0 && head -c1 /tmp/disk", user="root")
            assert made.exit.code != 0
            used = await shell(
                box, "echo x > /dev/null && head -c3 /dev/zero | wc -c && echo y > /dev/stderr"
            )
            assert (used.stdout, used.stderr) == ("3\n", "y\n")

    in_loop(work())


def test_what_the_kernel_tells_of_the_whole_machine_is_hidden_or_read_only() -> None:
    async def work() -> None:
        async with a_box() as box:
            tried = await shell(
                box,
                "for f in kcore keys kallsyms timer_list; do head -c1 /proc/$f; done;"
                "echo b > /proc/sysrq-trigger; echo 1 > /proc/sys/kernel/printk; dmesg; true",
                user="root",
            )
            assert tried.stdout == ""

    in_loop(work())


def test_the_host_is_not_changed_by_writing_to_its_programs() -> None:
    async def work() -> None:
        async with a_backend() as backend:
            one = await backend.create(BoxSpec("one"))
            two = await backend.create(BoxSpec("two"))
            changed = await shell(one, "rm /usr/bin/env && echo x > /usr/local/bin/new", user="root")
            if os.geteuid() == 0:
                assert changed.exit.code == 0, changed.stderr
            assert os.path.exists("/usr/bin/env")
            assert not os.path.exists("/usr/local/bin/new")
            assert (await shell(two, "env >/dev/null; ls /usr/local/bin/new")).exit.code != 0

    in_loop(work())


def test_interpreters_shells_and_compilers_of_the_host_work() -> None:
    async def work() -> None:
        async with a_box() as box:
            python = await run(box, "python3", "-c", "import ssl, json; print(json.dumps([1]))")
            assert (python.exit.code, python.stdout) == (0, "[1]\n"), python.stderr
            if shutil.which("gcc", path="/usr/bin"):
                built = await shell(box, "echo 'int main(){return 7;}' | gcc -x c - -o ~/a && ~/a")
                assert built.exit.code == 7, built.stderr
            login = await run(box, "/bin/bash", "-l", "-c", "echo $PATH; pwd")
            assert login.stdout.splitlines()[1] == "/home/user", login.stderr
            assert login.stderr == ""

    in_loop(work())


def test_a_box_can_be_given_the_servers_python_without_its_packages() -> None:
    async def work() -> None:
        async with a_box(expose_python=True) as box:
            script = "import sys, ssl, ctypes; print(sys.version); print(sys.prefix); import pydantic"
            told = await run(box, "python3", "-c", script)
            assert told.stdout.splitlines() == [*sys.version.splitlines(), "/opt/py"]
            assert "No module named 'pydantic'" in told.stderr
            installed = await shell(
                box, "python3 -m ensurepip 2>&1 | tail -1; python3 -m pip --version", "root"
            )
            assert installed.exit.code == 0, installed.stdout
            venv = await shell(box, "python3 -m venv --without-pip ~/v && ~/v/bin/python -c 'print(1)'")
            assert venv.stdout == "1\n", venv.stderr

    in_loop(work())


def test_what_is_written_is_bounded(tmp_path: Path) -> None:
    async def work() -> None:
        async with a_backend() as backend:
            box = await backend.create(
                BoxSpec("box", limits=Limits(memory_bytes=256 << 20, disk_bytes=32 << 20))
            )
            for place in ("/tmp/x", "/dev/shm/x", "/var/tmp/x", "~/x"):
                filled = await shell(box, f"head -c 100M /dev/zero > {place}; rm {place}")
                assert "No space left" in filled.stderr, place
            names = await shell(box, "cd /tmp; for i in $(seq 30000); do : > $i || exit 1; done")
            assert names.exit.code == 1
            assert (await shell(box, "rm -r /tmp/*; echo ok > /tmp/x")).exit.code == 0

    in_loop(work())


def test_a_user_has_a_bounded_number_of_processes_and_the_box_answers_when_they_are_used_up() -> None:
    """G7: what forks without end ends at its bound, and the box goes on answering."""
    program = (
        "import os, signal, sys\n"
        "n = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: signal.pause()\n"
        "        n += 1\n"
        "except OSError: print(n, flush=True)\n"
        "signal.pause()\n"
    )

    async def work() -> None:
        async with a_box() as box:
            greedy = await box.spawn(Command(["python3", "-c", program], "user"))
            assert greedy.stdout is not None
            assert greedy.stderr is not None
            os.close(greedy.stderr)
            assert 1000 < int(await read_some(greedy.stdout)) < 4096
            started = time.monotonic()
            assert (await run(box, "id", "-u", user="root")).stdout == "0\n"
            await greedy.kill_tree()
            assert (await run(box, "true")).exit.code == 0
            assert time.monotonic() - started < 5
            os.close(greedy.stdout)

    in_loop(work())


def test_threads_of_one_server_may_have_a_backend_each() -> None:
    results = []

    async def work() -> None:
        async with a_box() as box:
            results.append((await run(box, "echo", "hello")).stdout)

    threads = [threading.Thread(target=in_loop, args=(work(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["hello\n", "hello\n"]
