"""The first difference between what two servers answered, or between what one answered and the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.fidelity.answer import Answer
from tests.fidelity.expectation import problem
from tests.fidelity.player import Player
from tests.fidelity.step import Step


@dataclass(frozen=True)
class Reply:
    """What came of a step on one server: its answer, or why there is none, and what was known then."""

    answer: Answer | str
    known: Mapping[str, str]

    def comparable(self, step: Step) -> Any:
        """What has to be equal on two servers."""
        if isinstance(self.answer, str):
            return self.answer
        found = {word: word in self.answer.raw for word in step.words}
        return {**without(self.answer.comparable(self.known), step.optional), "words": found}


@dataclass(frozen=True)
class Round:
    """One step, and what came of it on each server."""

    step: Step
    replies: Sequence[Reply]

    def breach(self) -> str | None:
        """What the first server answered other than the script expects, in words."""
        reply = self.replies[0]
        silent = isinstance(reply.answer, str)
        found = reply.answer if silent else problem(self.step, reply.answer, reply.known)  # type: ignore[arg-type]
        return self._told(found)  # type: ignore[arg-type]

    def difference(self) -> str | None:
        """The first difference between the two servers, in words."""
        one, other = (reply.comparable(self.step) for reply in self.replies)
        if isinstance(one, str) and isinstance(other, str):
            return None
        if isinstance(one, str) or isinstance(other, str):
            return self._told(f"A gave {one}" if isinstance(one, str) else f"B gave {other}")
        return self._told(unlike("", one, other))

    def _told(self, found: str | None) -> str | None:
        return None if found is None else f"{self.step.name} ({self.step.row}): {found}"


def rounds(steps: Iterable[Step], players: Sequence[Player]) -> Iterator[Round]:
    """Play steps on every server, side by side."""
    with ThreadPoolExecutor(len(players)) as pool:
        for step in steps:
            yield Round(step, list(pool.map(_play, players, [step] * len(players))))


def _play(player: Player, step: Step) -> Reply:
    try:
        answer: Answer | str = player.play(step)
    except Exception as error:  # noqa: BLE001 (a server may fail in any way: it is told, and the next step played)
        answer = f"no answer: {type(error).__name__}: {error}"
    return Reply(answer, dict(player.known))


def without(value: Any, names: Iterable[str]) -> Any:
    """A value of JSON without the members of these names."""
    if isinstance(value, list):
        return [without(item, names) for item in value]
    if isinstance(value, dict):
        return {key: without(item, names) for key, item in value.items() if key not in names}
    return value


def unlike(path: str, one: Any, other: Any) -> str | None:
    """The first difference between two values of JSON, with the path to it."""
    if isinstance(one, dict) and isinstance(other, dict):
        return _earliest(lambda key: _unlike_member(path, key, one, other), [*one, *(set(other) - set(one))])
    if isinstance(one, list) and isinstance(other, list):
        shared = min(len(one), len(other))
        found = _earliest(lambda place: unlike(f"{path}[{place}]", one[place], other[place]), range(shared))
        if found is None and len(one) != len(other):
            more, rest = ("A", one) if len(one) > len(other) else ("B", other)
            found = f"{path}[{shared}]: only {more} has {rest[shared]!r}"
        return found
    return None if one == other and type(one) is type(other) else f"{path}: {one!r} on A, {other!r} on B"


def _unlike_member(path: str, key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    path = f"{path}.{key}".lstrip(".")
    if key in one and key in other:
        return unlike(path, one[key], other[key])
    return f"{path}: only {'A' if key in one else 'B'} has it"


def _earliest(find: Callable[[Any], str | None], places: Iterable[Any]) -> str | None:
    return next((found for place in places if (found := find(place)) is not None), None)
