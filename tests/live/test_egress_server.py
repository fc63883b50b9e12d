"""The network of sandboxes as clients of a server see it: off, on, and ruled."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox_local import LocalServer
from sandbox_sync import Sandbox
from sandbox_sync.errors import NotFoundException, SandboxException
from tests.live import far_machine as far

CONNECT = (
    "python3 -c 'import socket, sys; sock = socket.create_connection((sys.argv[1], {port}), 15); "
    'sock.sendall(b"x"); sock.shutdown(1); print(sock.recv(1).decode())\' '
)


def where(server: LocalServer) -> dict[str, Any]:
    return {"api_url": server.url, "sandbox_url": server.url, "api_key": server.api_key}


@pytest.fixture(scope="module")
def on() -> Iterator[dict[str, Any]]:
    with LocalServer(internet=True) as server:
        yield where(server)


@pytest.fixture(scope="module")
def off() -> Iterator[dict[str, Any]]:
    with LocalServer() as server:
        yield where(server)


def test_without_the_switch_there_is_no_network_and_rules_are_refused_by_naming_it(
    off: dict[str, Any],
) -> None:
    with Sandbox.create(**off) as sandbox:
        assert sandbox.get_info().allow_internet_access is False
        routes = sandbox.commands.run("tail -n +2 /proc/net/route; cat /etc/resolv.conf")
        assert routes.stdout == ""
        with pytest.raises(SandboxException, match=r"serve --internet.*SANDBOX_LOCAL_INTERNET"):
            sandbox.update_network({"allow_out": ["1.1.1.1"]})
    with pytest.raises(SandboxException, match=r"network\.denyOut.*serve --internet"):
        Sandbox.create(network={"deny_out": ["0.0.0.0/0"]}, **off)
    with Sandbox.create(allow_internet_access=True, **off) as sandbox:
        assert sandbox.get_info().allow_internet_access is False


def test_the_rules_in_force_are_told_and_replaced_as_a_whole(on: dict[str, Any]) -> None:
    rules: Any = {"allow_out": ["1.1.1.1", "*.example.com"], "deny_out": ["0.0.0.0/0"]}
    with Sandbox.create(network=rules, **on) as sandbox:
        info = sandbox.get_info()
        assert info.allow_internet_access is True
        assert info.network == {"allow_public_traffic": True, **rules}
        sandbox.update_network({"allow_internet_access": False})
        info = sandbox.get_info()
        assert info.allow_internet_access is False
        assert info.network == {"allow_public_traffic": True}
        sandbox.update_network({})
        assert sandbox.get_info().allow_internet_access is True
        sandbox.pause()
        with pytest.raises(SandboxException, match="paused"):
            sandbox.update_network({})
        sandbox.connect()
        sandbox.update_network({"deny_out": ["9.9.9.9"]})
    with pytest.raises(NotFoundException):
        Sandbox.update_network(sandbox.sandbox_id, {}, **on)
    with Sandbox.create(allow_internet_access=False, **on) as sandbox:
        assert sandbox.get_info().allow_internet_access is False


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"allow_out": ["300.0.0.1"]}, "network.allowOut: '300.0.0.1'"),
        ({"deny_out": ["example.com"]}, "network.denyOut: 'example.com'"),
        ({"allow_out": ["example.com"]}, "denyOut"),
        ({"allow_out": ["::1"]}, "network.allowOut: '::1'.*IPv4"),
        ({"dns_servers": ["1.1.1.1"]}, "network.dnsServers: "),
        ({"egress_proxy": {"address": "proxy.test:1"}}, "network.egressProxy: "),
        ({"mask_request_host": "a.test"}, "network.maskRequestHost: "),
        ({"https_ports": [443]}, "network.httpsPorts: "),
        ({"rules": {"a.test": [{"transform": {"headers": {"a": "b"}}}]}}, "network.rules: "),
    ],
)
def test_rules_that_are_wrong_or_beyond_this_server_are_refused_by_name(
    on: dict[str, Any], network: Any, said: str
) -> None:
    with pytest.raises(SandboxException, match=said):
        Sandbox.create(network=network, **on)


def test_this_machine_is_reached_by_its_address_when_that_is_named(on: dict[str, Any]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.77", 9))
        except OSError:
            pytest.skip("this machine has no address but its loopback's")
        address = sock.getsockname()[0]
    with socket.create_server((address, 0)) as listener, Sandbox.create(**on) as sandbox:
        listener.settimeout(20)
        connect = CONNECT.format(port=listener.getsockname()[1]) + address
        assert "Error" in sandbox.commands.run(connect + " 2>&1 || true").stdout
        sandbox.update_network({"allow_out": [address]})
        command = sandbox.commands.run(connect, background=True)
        with listener.accept()[0] as peer:
            peer.sendall(b"y")
            assert command.wait().stdout == "y\n"


def test_a_sandbox_reaches_what_its_rules_say_from_now_on() -> None:
    far.require_root()
    connect = CONNECT.format(port=far.ECHO)

    def work() -> None:
        with LocalServer(internet=True) as server:
            on = where(server)
            with Sandbox.create(**on) as sandbox:
                assert sandbox.commands.run(connect + far.OUTSIDE).stdout == "x\n"
                assert sandbox.commands.run(connect + far.OUTSIDE, user="root").stdout == "x\n"
                sandbox.update_network({"deny_out": [far.OUTSIDE]})
                assert "Error" in sandbox.commands.run(connect + far.OUTSIDE + " 2>&1 || true").stdout
                assert sandbox.commands.run(connect + far.OTHER).stdout == "x\n"
            assert server.log == ""

    far.in_far_network(work)


def test_a_server_stops_at_once_and_cleanly_while_connections_are_open() -> None:
    far.require_root()

    def work() -> str:
        with LocalServer(internet=True) as server:
            on = where(server)
            sandbox = Sandbox.create(**on)
            script = f"exec 3<>/dev/tcp/{far.OUTSIDE}/{far.ECHO}; echo a >&3; read x <&3; echo $x; sleep 60"
            command = sandbox.commands.run(script, background=True)
            assert next(iter(command))[0] == "a\n"
            sandbox.kill()
            sandbox = Sandbox.create(**on)
            command = sandbox.commands.run(script, background=True)
            assert next(iter(command))[0] == "a\n"
            return server.log

    assert far.in_far_network(work) == ""


# Lets the kernel look as if it had no netfilter, then becomes the server.
BLIND = """
import os, struct, sys
from sandbox_local.isolation import syscalls
from sandbox_local.isolation.inside import seccomp
number = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
code = [(0x20, 0, 0, 0), (0x15, 0, 5, number), (0x20, 0, 0, 16), (0x15, 0, 3, 16), (0x20, 0, 0, 32),
        (0x15, 0, 1, 12), (0x06, 0, 0, 0x5005D), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
syscalls._libc.prctl(38, 1, 0, 0, 0)
syscalls.load_seccomp(seccomp._Program(len(code) // 8, code))
os.execv(sys.executable, [sys.executable, "-m", "sandbox_local", "serve", *sys.argv[1:]])
"""


def test_where_the_kernel_has_no_packet_filter_the_server_says_so_and_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLIND, "--internet"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 78, done.stderr
    assert "Protocol not supported" in done.stderr
    assert "CONFIG_NF_TABLES" in done.stderr
    assert "start the server without a network" in done.stderr
