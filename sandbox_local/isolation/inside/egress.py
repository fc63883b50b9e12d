"""The way out of a box's network namespace: all TCP, and questions of DNS, to two sockets of the server's.

There is no device that leads outside. The default route is the loopback interface, on which nf_tables turns
every connection to another machine towards the first socket, where the kernel tells whom it was for, and
every datagram to port 53 towards the second. What else would go out is refused at once, IPv6 by the lack of a
route. Commands lack the capability to change any of this, whatever user they run as.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from sandbox_local.isolation.inside import netlink
from sandbox_local.isolation.inside.netlink import Request, attribute, nested, number, text

# Link-local, so what has these addresses outside is out of the reach of every box anyway.
_ADDRESS = "169.254.1.1"
_NAME_SERVER = "169.254.1.53"

# An address and a port that no program wants for itself.
_HATCH = ("127.255.255.254", 1)

_DNS_PORT = 53
_BACKLOG = 1024
_TRIAL_SECONDS = 2.0
_SO_ORIGINAL_DST = 80

_RESOLV_CONF = f"nameserver {_NAME_SERVER}\noptions timeout:5 attempts:2\n"

# rtnetlink(7)
_NEWADDR, _NEWROUTE = 20, 24
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_OIF, _RTA_PREFSRC = 4, 7
_TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_LINK, _UNICAST = 254, 4, 253, 1

# linux/netfilter/nf_tables.h
_NEWTABLE, _NEWCHAIN, _NEWRULE = 0, 3, 6
_TABLE = "egress"
_HOOK_OUTPUT = 3
_DROP, _ACCEPT = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_DESTINATION_OFFSET, _DESTINATION_PORT_OFFSET = 16, 2
_META_L4PROTO = 16


def open_way() -> tuple[socket.socket, socket.socket]:
    """Make it, for the first process of a box, in whose namespace nothing runs yet.

    Returns:
        What listens for connections, and what gets the questions of DNS.

    Raises:
        OSError: The kernel refused a step, or what it did is not what was asked for.
    """
    netlink.change(_routes())
    netlink.filter_packets(_rules())
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    questions = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listener.bind(_HATCH)
        listener.listen(_BACKLOG)
        questions.bind(_HATCH)
        _try(listener, questions)
        _write_resolv_conf()
    except BaseException:
        listener.close()
        questions.close()
        raise
    return listener, questions


def _routes() -> list[Request]:
    loopback = socket.if_nametoindex("lo")
    own = socket.inet_aton(_ADDRESS)
    address = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, loopback)
    route = struct.pack(
        "=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_LINK, _UNICAST, 0
    )
    return [
        Request(_NEWADDR, address + attribute(_IFA_LOCAL, own) + attribute(_IFA_ADDRESS, own), "an address"),
        Request(
            _NEWROUTE,
            route + attribute(_RTA_OIF, struct.pack("=I", loopback)) + attribute(_RTA_PREFSRC, own),
            "the default route",
        ),
    ]


def _rules() -> list[Request]:
    here = [
        [*_load_header(_NETWORK_HEADER, _DESTINATION_OFFSET, 1), _equal(b"\x7f"), _verdict(_ACCEPT)],
        [
            *_load_header(_NETWORK_HEADER, _DESTINATION_OFFSET, 4),
            _equal(socket.inet_aton(_ADDRESS)),
            _verdict(_ACCEPT),
        ],
    ]
    dns = [
        *_load_header(_TRANSPORT_HEADER, _DESTINATION_PORT_OFFSET, 2),
        _equal(struct.pack("!H", _DNS_PORT)),
    ]
    turns = [
        [*_protocol(socket.IPPROTO_TCP), *_turn()],
        [*_protocol(socket.IPPROTO_UDP), *dns, *_turn()],
    ]
    return [
        Request(_NEWTABLE, text(1, _TABLE) + number(2, 0), "a table of nf_tables"),
        _chain("nat", priority=-100, policy=_ACCEPT),
        _chain("filter", priority=0, policy=_DROP),
        *(_rule("nat", expressions) for expressions in (*here, *turns)),
        *(_rule("filter", expressions) for expressions in here),
    ]


def _chain(kind: str, *, priority: int, policy: int) -> Request:
    """A chain of that type and name for what programs send."""
    hook = nested(4, number(1, _HOOK_OUTPUT), number(2, priority))
    body = text(1, _TABLE) + text(3, kind) + text(7, kind) + number(5, policy) + hook
    return Request(_NEWCHAIN, body, f"a {kind} chain of nf_tables")


def _rule(chain: str, expressions: list[bytes]) -> Request:
    body = text(1, _TABLE) + text(2, chain) + nested(4, *expressions)
    return Request(_NEWRULE, body, f"a rule of the {chain} chain of nf_tables")


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def _load_header(base: int, offset: int, length: int) -> list[bytes]:
    return [_expression("payload", number(1, 1), number(2, base), number(3, offset), number(4, length))]


def _protocol(wanted: int) -> list[bytes]:
    return [_expression("meta", number(2, _META_L4PROTO), number(1, 1)), _equal(bytes([wanted]))]


def _equal(value: bytes) -> bytes:
    return _expression("cmp", number(1, 1), number(2, 0), nested(3, attribute(1, value)))


def _set_register(register: int, value: bytes) -> bytes:
    return _expression("immediate", number(1, register), nested(2, attribute(1, value)))


def _verdict(verdict: int) -> bytes:
    return _expression("immediate", number(1, 0), nested(2, nested(2, number(1, verdict))))


def _turn() -> list[bytes]:
    """Give a packet the hatch as its destination."""
    address, port = _HATCH
    nat = _expression(
        "nat", number(1, 1), number(2, socket.AF_INET), number(3, 1), number(5, 2), number(7, 2)
    )
    return [_set_register(1, socket.inet_aton(address)), _set_register(2, struct.pack("!H", port)), nat]


def _try(listener: socket.socket, questions: socket.socket) -> None:
    """See that a kernel which takes the rules also follows them.

    Raises:
        OSError: It does not.
    """
    with socket.socket() as client, socket.socket(type=socket.SOCK_DGRAM) as asker:
        for sock in (client, asker, listener, questions):
            sock.settimeout(_TRIAL_SECONDS)
        client.connect((_NAME_SERVER, _DNS_PORT))
        accepted = listener.accept()[0]
        with accepted:
            told = accepted.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        if struct.unpack_from("!H4s", told, 2) != (_DNS_PORT, socket.inet_aton(_NAME_SERVER)):
            raise OSError(errno.ENOTSUP, "the kernel does not tell whom a redirected connection was for")
        asker.sendto(b"?", (_NAME_SERVER, _DNS_PORT))
        questions.sendto(b"!", questions.recvfrom(1)[1])
        if asker.recvfrom(1)[1] != (_NAME_SERVER, _DNS_PORT):
            raise OSError(errno.ENOTSUP, "the kernel does not redirect answers")
        try:
            asker.sendto(b"?", (_NAME_SERVER, _DNS_PORT + 1))
        except PermissionError:
            return
        raise OSError(errno.ENOTSUP, "the kernel does not refuse what is not redirected")


def _write_resolv_conf() -> None:
    path = "/etc/resolv.conf"
    try:
        os.unlink(path)  # it may be a link
    except FileNotFoundError:
        pass
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(_RESOLV_CONF)
