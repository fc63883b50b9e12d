"""What one sandbox may reach."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

_NEVER = tuple(
    map(
        IPv4Network,
        ("0.0.0.0/8", "127.0.0.0/8", "168.63.129.16", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
"""This machine's loopback, links and one address more (the metadata services of clouds), groups, and what is
no address."""

_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")))

_EVERYTHING = IPv4Network("0.0.0.0/0")

_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_DOMAIN = re.compile(rf"(?=.{{1,253}}$)(\*\.)?({_LABEL}\.)*{_LABEL}")

MOST_ENTRIES = 1000


class BadRule(ValueError):
    """A rule that can't be; the message says which, and why."""


class BeyondRules(Exception):
    """A rule that means something, but nothing that this server can do; the message says which, and why."""


@dataclass(frozen=True)
class Policy:
    """The rules of one sandbox; what is allowed wins over what is denied.

    Attributes:
        internet: Whether it may reach what no rule names.
        allow_out: Addresses, CIDR blocks and names that it may reach, as they were given.
        deny_out: Addresses and CIDR blocks that it may not reach, as they were given.

    Raises:
        BadRule: A rule can't be.
        BeyondRules: A rule can't be kept here.
    """

    internet: bool = True
    allow_out: tuple[str, ...] = ()
    deny_out: tuple[str, ...] = ()
    _allowed: tuple[IPv4Network, ...] = field(init=False, repr=False)
    _denied: tuple[IPv4Network, ...] = field(init=False, repr=False)
    _domains: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, entries in (("allowOut", self.allow_out), ("denyOut", self.deny_out)):
            if len(entries) > MOST_ENTRIES:
                raise BadRule(f"{name}: {len(entries)} entries, more than {MOST_ENTRIES}")
        allowed, domains = [], []
        for entry in self.allow_out:
            network = _network("allowOut", entry)
            if network is None:
                domains.append(_domain(entry))
            elif isinstance(network, IPv6Network):
                raise BeyondRules(f"allowOut: {entry!r}: sandboxes of this local server reach IPv4 alone")
            else:
                allowed.append(network)
        denied = []
        for entry in self.deny_out:
            network = _network("denyOut", entry)
            if network is None:
                raise BadRule(
                    f"denyOut: {entry!r} is no address and no CIDR block; names can only be allowed"
                )
            if isinstance(network, IPv4Network):  # IPv6 leads nowhere anyway
                denied.append(network)
        object.__setattr__(self, "_allowed", tuple(allowed))
        object.__setattr__(self, "_denied", tuple(denied))
        object.__setattr__(self, "_domains", tuple(domains))
        if domains and not self.closed:
            raise BadRule(
                f"allowOut: the name {domains[0]!r} allows nothing that is not allowed anyway; deny the rest "
                "by denyOut ['0.0.0.0/0']"
            )

    @property
    def closed(self) -> bool:
        """Whether nothing can be reached but what is allowed in as many words."""
        return not self.internet or _EVERYTHING in self._denied

    @property
    def by_name(self) -> bool:
        """Whether something is allowed by its name."""
        return bool(self._domains)

    def permits(self, address: IPv4Address, *, ours: bool = False, name: str | None = None) -> bool:
        """Whether a connection may be made.

        Args:
            address: To where.
            ours: Whether that is this machine. It can be reached if it is allowed as this one address.
            name: What the address was found by, if that is sure.
        """
        if any(address in network for network in _NEVER):
            return False
        allowing = [network for network in self._allowed if address in network]
        if ours:
            return any(network.prefixlen == 32 for network in allowing)
        for private in _PRIVATE:
            if address in private:
                return any(network.subnet_of(private) for network in allowing)
        if allowing or (name is not None and self.permits_name(name)):
            return True
        return self.internet and not any(address in network for network in self._denied)

    def permits_name(self, name: str) -> bool:
        """Whether a name, in lower case, is among the allowed ones."""
        return any(
            name.endswith(domain[1:]) if domain.startswith("*.") else name == domain
            for domain in self._domains
        )

    def resolves(self, name: str) -> bool:
        """Whether the sandbox may ask for a name: a question can carry data out, too."""
        return not self.closed or self.permits_name(name)


def _network(field: str, entry: str) -> IPv4Network | IPv6Network | None:
    """The addresses that an entry means; None if it is a name."""
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        if re.fullmatch(r"[0-9./]*|.*[:/].*", entry):
            raise BadRule(f"{field}: {entry!r} is no address, CIDR block or name") from None
        return None


def _domain(entry: str) -> str:
    try:
        text = entry.rstrip(".").lower()
        domain = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    if not _DOMAIN.fullmatch(domain):
        raise BadRule(
            f"allowOut: {entry!r} is no address, CIDR block or name, such as example.com or *.example.com"
        )
    return domain
