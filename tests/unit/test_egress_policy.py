"""What a policy permits, for every address there is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_local.egress.policy import MOST_ENTRIES, BadRule, BeyondRules, Policy

NEVER = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "224.0.0.0/3"]
PRIVATE = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"]


def within(blocks: list[str]) -> st.SearchStrategy[IPv4Address]:
    return st.sampled_from(blocks).flatmap(lambda block: st.ip_addresses(network=block)).map(IPv4Address)


public = (
    st.ip_addresses(v=4)
    .map(IPv4Address)
    .filter(lambda address: not any(address in IPv4Network(block) for block in NEVER + PRIVATE))
)
everything = st.sampled_from(["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"])


@given(within(NEVER), st.booleans())
def test_what_is_never_reached_is_not_even_when_it_is_named(address: IPv4Address, ours: bool) -> None:
    policy = Policy(True, (str(address), "0.0.0.0/0", *NEVER))
    assert not policy.permits(address, ours=ours)
    assert not Policy(False, (str(address), "*.test")).permits(address, ours=ours, name="a.test")


@given(within(PRIVATE), st.lists(everything))
def test_private_addresses_are_reached_when_they_are_named_and_by_nothing_wider(
    address: IPv4Address, wide: list[str]
) -> None:
    assert not Policy(True, tuple(wide)).permits(address)
    assert not Policy(False, ("good.test",)).permits(address, name="good.test")
    assert Policy(False, (str(address),)).permits(address)
    block = next(block for block in PRIVATE if address in IPv4Network(block))
    assert Policy(True, (block,), ("0.0.0.0/0",)).permits(address)


@given(public, st.integers(0, 31))
def test_this_machine_is_reached_when_its_one_address_is_named(address: IPv4Address, prefix: int) -> None:
    wide = str(IPv4Network((address, prefix), strict=False))
    assert not Policy().permits(address, ours=True)
    assert not Policy(True, (wide,)).permits(address, ours=True)
    assert not Policy(False, ("good.test",)).permits(address, ours=True, name="good.test")
    assert Policy(True, (str(address),)).permits(address, ours=True)


@given(public, st.integers(0, 32), st.integers(0, 32))
def test_what_is_allowed_wins_over_what_is_denied(address: IPv4Address, allowed: int, denied: int) -> None:
    allow = str(IPv4Network((address, allowed), strict=False))
    deny = str(IPv4Network((address, denied), strict=False))
    assert Policy().permits(address)
    assert not Policy(False).permits(address)
    assert not Policy(True, (), (deny,)).permits(address)
    assert Policy(True, (allow,), (deny,)).permits(address)
    assert Policy(False, (allow,), (deny,)).permits(address)


@given(public)
def test_what_no_rule_names_depends_on_the_switch(address: IPv4Address) -> None:
    other = str(ip_address(int(address) ^ 1))
    for policy in (Policy(True, (), (other,)), Policy(True, (other,))):
        assert policy.permits(address)
    assert not Policy(False, (other,)).permits(address)


def test_names() -> None:
    policy = Policy(False, ("Example.COM.", "*.example.org", "bücher.test"))
    assert policy.closed
    for name in ("example.com", "a.example.org", "a.b.example.org", "xn--bcher-kva.test"):
        assert policy.permits_name(name), name
        assert policy.resolves(name)
    for name in ("www.example.com", "example.org", "badexample.org", "example.com.evil.test", ""):
        assert not policy.permits_name(name), name
        assert not policy.resolves(name)
    assert Policy().resolves("anything.test")
    assert not Policy(True, (), ("0.0.0.0/0",)).resolves("anything.test")


@pytest.mark.parametrize(
    ("allow", "deny", "said"),
    [
        (["300.1.1.1"], [], "allowOut: '300.1.1.1'"),
        (["10.0.0.0/33"], [], "allowOut"),
        (["010.0.0.1"], [], "allowOut"),
        (["example.com:443"], [], "allowOut"),
        (["https://example.com"], [], "allowOut"),
        (["a..b"], [], "allowOut"),
        (["*"], [], "allowOut"),
        (["a.*.b"], [], "allowOut"),
        (["x" * 64], [], "allowOut"),
        ([""], [], "allowOut"),
        ([], ["example.com"], "denyOut: 'example.com'"),
        (["example.com"], ["1.2.3.4"], "denyOut ['0.0.0.0/0']"),
        ([], ["1.1.1.1"] * (MOST_ENTRIES + 1), "denyOut: 1001"),
    ],
)
def test_rules_that_cannot_be(allow: list[str], deny: list[str], said: str) -> None:
    with pytest.raises(BadRule) as caught:
        Policy(True, tuple(allow), tuple(deny))
    assert said in str(caught.value)


@pytest.mark.parametrize("entry", ["::1", "2001:db8::/32", "::ffff:127.0.0.1", "::/0"])
def test_ipv6_can_be_denied_and_not_allowed(entry: str) -> None:
    Policy(True, (), (entry,))
    with pytest.raises(BeyondRules, match="IPv4"):
        Policy(True, (entry,))


@given(st.text(max_size=80))
def test_no_text_is_more_than_refused(entry: str) -> None:
    for rules in ((entry,), ()), ((), (entry,)):
        try:
            Policy(False, *rules)
        except (BadRule, BeyondRules):
            pass
