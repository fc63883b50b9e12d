"""What the doctor makes of what it sees, and how it reports it."""

from __future__ import annotations

import pytest

from sandbox_local.doctor import bounds
from sandbox_local.doctor.inside import findings
from sandbox_local.doctor.report import Finding, Report, Section, State
from sandbox_local.isolation.limits.enforcement import Enforcement, Shortfall

_SOUND = {
    **{f"ns-{kind}": f"{kind}:[1]" for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")},
    "Seccomp": "2",
    "CapBnd": "00000000a80405fb",
    "ids": "1000000 65536",
    "processes": "4",
    "descriptors": "0",
    "system": "written",
    "sudo": "0 /usr/bin/sudo",
}
_OTHER = {**_SOUND, "ids": "2000000 65536"}


def states(seen: dict[str, str]) -> dict[str, State]:
    return {each.title: each.state for part in findings(seen, _OTHER) for each in part.findings}


def without(key: str) -> dict[str, str]:
    return {name: value for name, value in _SOUND.items() if name != key}


def test_where_everything_holds_everything_is_on() -> None:
    assert set(states(_SOUND).values()) == {State.ON}


@pytest.mark.parametrize(
    ("title", "seen"),
    [
        ("namespaces", {**_SOUND, "ns-pid": "HOST"}),
        ("namespaces", without("ns-net")),
        ("files", {**_SOUND, "file": "seen"}),
        ("processes", {**_SOUND, "processes": "200"}),
        ("processes", without("processes")),
        ("environment", {**_SOUND, "environment": "seen"}),
        ("loopback", {**_SOUND, "loopback": "reached"}),
        ("first process", {**_SOUND, "agent": "read"}),
        ("descriptors", {**_SOUND, "descriptors": "1"}),
        ("descriptors", without("descriptors")),
        ("system call filter", {**_SOUND, "Seccomp": "0"}),
        ("system call filter", {**_SOUND, "namespaces": "made"}),
        ("system call filter", without("Seccomp")),
        ("capabilities", {**_SOUND, "CapBnd": "000001ffffffffff"}),
        ("capabilities", without("CapBnd")),
        ("sudo", {**_SOUND, "sudo": ""}),
    ],
)
def test_a_protection_that_does_not_hold_is_a_failure(
    title: str, seen: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.readlink", lambda path: "HOST")
    found = states(seen)
    assert found.pop(title) is State.FAILED
    assert State.FAILED not in found.values()


@pytest.mark.parametrize(
    ("title", "seen"),
    [
        ("user ids", {**_SOUND, "ids": "1000 1"}),
        ("user ids", {**_SOUND, "ids": _OTHER["ids"]}),
        ("sudo", {**_SOUND, "sudo": "0 /usr/local/bin/sudo"}),
        ("system files", without("system")),
    ],
)
def test_what_a_machine_gives_only_in_part_is_told(title: str, seen: dict[str, str]) -> None:
    assert states(seen)[title] is State.PARTLY


_BOUNDS = {"memory": "much", "pids": "many", "cpu": "all"}
_GROUPS = Enforcement("groups", dict.fromkeys(_BOUNDS, "a group"), [])
_NONE = Enforcement("none", {}, [Shortfall(name, "less", "no groups", "get some") for name in _BOUNDS])


def test_bounds_are_told_with_what_enforces_them_or_why_nothing_does() -> None:
    for enforcement, state, words in ((_GROUPS, State.ON, "a group"), (_NONE, State.PARTLY, "no groups")):
        found = bounds.findings(enforcement, _BOUNDS, hog="137")
        assert [each.state for each in found] == [state] * 3
        assert all(words in each.detail for each in found)
    assert found[0].remedy == "get some"


@pytest.mark.parametrize("enforcement", [_GROUPS, _NONE])
@pytest.mark.parametrize("hog", ["0", ""])
def test_memory_that_was_exceeded_is_a_failure_whatever_is_claimed(
    enforcement: Enforcement, hog: str
) -> None:
    found = bounds.findings(enforcement, _BOUNDS, hog=hog)
    assert [each.state is State.FAILED for each in found] == [True, False, False]


def test_a_report_is_sound_only_if_nothing_failed() -> None:
    on, off, failed = (Finding("x", state, "seen", "do") for state in (State.ON, State.OFF, State.FAILED))
    assert Report({}, [Section("s", [on, off])]).sound
    assert not Report({}, [Section("s", [on, failed])]).sound
    assert not Report({}, [Section("s", [on])], refusal="no").sound


def test_the_text_holds_everything_that_the_data_does() -> None:
    finding = Finding("a title", State.PARTLY, "the detail " * 20, "the remedy " * 20)
    report = Report({"Kernel": "Linux"}, [Section("A section", [finding])])
    words = report.as_text().split()
    for part in (
        "Kernel: Linux",
        "A section",
        "partly a title",
        finding.detail.strip(),
        finding.remedy.strip(),
    ):
        assert part in " ".join(words)
    assert report.as_dict()["sections"]["A section"][0]["state"] == "partly"
    assert "why not" in Report({}, refusal="why not").as_text()
