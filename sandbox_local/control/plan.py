"""What a create request asks for, checked against what this machine can do."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox_local.control.errors import BadRequest
from sandbox_local.control.templates import BASE, Template
from sandbox_local.egress.policy import Policy

# What the wire's int32 can say; one machine has no other bound on how long a sandbox may live.
LONGEST = 2**31 - 1


@dataclass(frozen=True)
class Plan:
    """A sandbox to be made.

    Attributes:
        timeout: Seconds that it lives, unless that is changed later.
        template: What it starts from.
        secure: Whether envd asks for an access token.
        public_traffic: Whether its ports are open to requests without a traffic token.
        policy: What it may reach, where sandboxes have a network.
        auto_pause: Whether it is paused, not killed, when its time is over.
        auto_resume: Whether a request to a paused sandbox resumes it.
        metadata: The user's own labels.
        env_vars: Environment of every process in it.
    """

    timeout: int
    template: Template = BASE
    secure: bool = True
    public_traffic: bool = True
    policy: Policy = field(default_factory=Policy)
    auto_pause: bool = False
    auto_resume: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    env_vars: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= LONGEST:
            raise BadRequest(f"timeout: must be between 1 and {LONGEST} seconds, got {self.timeout}")
        if self.auto_resume and not self.auto_pause:
            raise BadRequest(
                "autoResume: a sandbox that is killed at its timeout can't resume; set autoPause too"
            )
        if not self.public_traffic and not self.secure:
            raise BadRequest(
                "network.allowPublicTraffic: closing the ports needs a secured sandbox; set secure"
            )
        for name, value in self.env_vars.items():
            if not name or "=" in name or "\0" in name or "\0" in value:
                raise BadRequest(
                    f"envVars: {name!r} can't be the name of an environment variable, or its value can't"
                )
