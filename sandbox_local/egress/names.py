"""What one sandbox asks of DNS, and what it has been told."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address

from sandbox_local.egress import message
from sandbox_local.egress.policy import Policy
from sandbox_local.egress.resolver import NoAnswer, Resolver

# Of no use without IPv6, or, with the keys of encrypted ClientHellos, in the way of rules about names.
_WITHHELD = frozenset({message.AAAA, message.SVCB, message.HTTPS})

# Whole zones; what this machine's name servers give it is not the sandbox's to have.
_REFUSED = frozenset({message.AXFR, message.IXFR})

_MOST_TOLD = 4096


class Names:
    """Answers its questions.

    Args:
        resolver: Knows the answers.
        policy: Its rules.
    """

    def __init__(self, resolver: Resolver, policy: Policy) -> None:
        self._resolver = resolver
        self.policy = policy
        self._told: OrderedDict[tuple[IPv4Address, str], None] = OrderedDict()

    async def answer(self, asked: bytes, *, stream: bool) -> bytes | None:
        """The answer to a message, or None if it deserves none.

        Args:
            asked: What came; it may be anything.
            stream: Whether it came over TCP.
        """
        try:
            question = message.question(asked)
        except message.Malformed:
            return None
        if question.kind in _REFUSED or not self.policy.resolves(question.name):
            return message.reply(asked, message.REFUSED)
        if question.kind in _WITHHELD:
            return message.reply(asked)
        try:
            answer = await self._resolver.forward(asked, stream=stream)
        except NoAnswer:
            return message.reply(asked, message.SERVER_FAILED)
        if question.kind == message.A and self.policy.permits_name(question.name):
            self._note(question.name, answer)
        return answer

    def permitted(self, address: IPv4Address) -> str | None:
        """A name that is allowed and by which the sandbox was told an address."""
        for told, name in self._told:
            if told == address and self.policy.permits_name(name):
                return name
        return None

    async def addresses(self, name: str) -> list[IPv4Address]:
        """The addresses of a name. Raises NoAnswer."""
        return await self._resolver.addresses(name)

    def _note(self, name: str, answer: bytes) -> None:
        try:
            found = message.addresses(answer)
        except message.Malformed:
            return
        for address in found:
            self._told[address, name] = None
            self._told.move_to_end((address, name))
        while len(self._told) > _MOST_TOLD:
            self._told.popitem(last=False)
