"""What it takes to reach into a sandbox, as the control plane tells it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sandbox_sync.errors import SandboxException

if TYPE_CHECKING:
    from sandbox_sync_rest.models.sandbox import Sandbox
    from sandbox_sync_rest.models.sandbox_detail import SandboxDetail
    from typing_extensions import Self

T = TypeVar("T")


class Access(NamedTuple):
    """What it takes to reach into a sandbox.

    Attributes:
        sandbox_id: Its id.
        domain: The domain it is reached under, if the service said one.
        token: What the agent inside wants to see, if anything.
        traffic_token: What its other ports want to see, if anything; told only by create and connect.
        agent: Version of the agent inside; empty if the service did not say it.
    """

    sandbox_id: str
    domain: str | None = None
    token: str | None = None
    traffic_token: str | None = None
    agent: tuple[int, ...] = ()

    @classmethod
    def told_by(cls, answer: Sandbox | SandboxDetail) -> Self:
        """Take it from an answer."""
        traffic_token = getattr(answer, "traffic_access_token", None)
        agent = agent_version(answer)
        return cls(answer.sandbox_id, answer.domain, answer.envd_access_token, traffic_token, agent)

    def __repr__(self) -> str:
        return f"Access(sandbox_id={self.sandbox_id!r})"


def agent_version(answer: Sandbox | SandboxDetail) -> tuple[int, ...]:
    """The version of the agent inside of a sandbox, as the service tells it; empty if it does not."""
    return tuple(int(number) for number in re.findall(r"\d+", answer.envd_version or "")[:3])


def complete(answer: T | None, what: str) -> T:
    """What an answer holds.

    Raises:
        SandboxException: It holds nothing.
    """
    if answer is None:
        raise SandboxException(f"The service answered with success but without the {what}")
    return answer
