"""The official package on a server that was given a network and a template."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox_local import LocalServer
from sandbox_local.templates.store import template_id
from tests.interop.both import both, e2b, got
from tests.live.rootfs import make_rootfs, template

pytestmark = pytest.mark.usefixtures("equipped_env")


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    rootfs = make_rootfs(tmp_path_factory.mktemp("rootfs"))
    (rootfs / "etc").mkdir()
    (rootfs / "etc/marker").write_text("of the template\n")
    store = tmp_path_factory.mktemp("templates") / "store"
    template(store, "import", "mine", rootfs)
    with LocalServer(internet=True, templates=store) as server:
        yield server
        assert "Traceback" not in server.log, server.log


@pytest.fixture
def equipped_env(equipped: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in equipped.env.items():
        monkeypatch.setenv(name, value)


@both()
async def test_a_template_is_named_in_every_way(sandbox: Any) -> None:
    kind = type(sandbox)
    known = e2b.AsyncTemplate if kind is e2b.AsyncSandbox else e2b.Template
    assert await got(known.alias_exists("mine")) is True
    assert await got(known.alias_exists("nobodys")) is False
    for reference in ("mine", "mine:latest", template_id("mine")):
        made = await got(kind.create(reference, timeout=60))
        try:
            told = await got(made.commands.run("cat /etc/marker; echo $E2B_TEMPLATE_ID"))
            assert told.stdout.split("\n") == ["of the template", template_id("mine"), ""]
            info = await got(made.get_info())
            assert (info.name, info.template_id) == ("mine", template_id("mine"))
            query = e2b.SandboxQuery(template="mine")
            listed = await got(kind.list(query=query).next_items())
            assert [one.sandbox_id for one in listed] == [made.sandbox_id]
        finally:
            await got(made.kill())


_RULES = {"allow_out": ["1.1.1.1", "*.example.com"], "deny_out": ["0.0.0.0/0"]}


@both(network=_RULES)
async def test_rules_of_the_network_are_told_and_replaced_as_a_whole(sandbox: Any) -> None:
    async def told() -> tuple[Any, Any, Any]:
        info = await got(sandbox.get_info())
        network = info.network or {}
        return info.allow_internet_access, network.get("allow_out"), network.get("deny_out")

    assert await told() == (True, _RULES["allow_out"], _RULES["deny_out"])
    await got(sandbox.update_network({"deny_out": ["9.9.9.9"]}))
    assert await told() == (True, None, ["9.9.9.9"])
    await got(type(sandbox).update_network(sandbox.sandbox_id, {"allow_internet_access": False}))
    assert await told() == (False, None, None)
    with pytest.raises(e2b.SandboxException, match=r"allowOut: '300\.0\.0\.1'"):
        await got(sandbox.update_network({"allow_out": ["300.0.0.1"]}))
    await got(sandbox.pause())
    with pytest.raises(e2b.SandboxException, match="paused") as refused:
        await got(sandbox.update_network({}))
    assert refused.value.status_code == 409
    with pytest.raises(e2b.SandboxNotFoundException):
        await got(type(sandbox).update_network("inosuchsandbox", {}))


_CONNECT = (
    "python3 -c 'import socket, sys; sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 15); "
    "print(sock.recv(9).decode())' "
)


@both(allow_internet_access=False)
async def test_the_network_lets_out_what_the_rules_say(sandbox: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.77", 9))
        except OSError:
            pytest.skip("this machine has no address but its loopback's")
        address = sock.getsockname()[0]
    assert (await got(sandbox.get_info())).allow_internet_access is False
    server = await asyncio.start_server(_greet, address, 0)
    connect = f"{_CONNECT} {address} {server.sockets[0].getsockname()[1]}"
    run = sandbox.commands.run
    in_thread = not isinstance(sandbox, e2b.AsyncSandbox)  # the loop is the server's, too

    async def outcome() -> Any:
        command = f"{connect} 2>&1 || true"
        return await (asyncio.to_thread(run, command) if in_thread else run(command))

    async with server:
        assert "Error" in (await outcome()).stdout
        await got(sandbox.update_network({"allow_out": [address]}))
        assert (await outcome()).stdout == "greetings\n"


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"greetings")
    await writer.drain()
    writer.close()
