"""The templates that a sandbox can be made from: here there is one, this machine's own system."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox_local.http import HttpError


@dataclass(frozen=True)
class Template:
    """A root filesystem that sandboxes start from.

    Attributes:
        template_id: Its id.
        alias: The name that people use.
        tags: Tags that name its only build.
    """

    template_id: str
    alias: str
    tags: frozenset[str] = frozenset({"default", "latest"})

    def is_called(self, reference: str) -> bool:
        """Whether `reference`, without a tag, is the id or the name of this template."""
        return reference in (self.template_id, self.alias)


BASE = Template(template_id="localbase00000000000", alias="base")
TEMPLATES = (BASE,)


def resolve(reference: str) -> Template:
    """The template that a create request names.

    Args:
        reference: `name`, `id`, `name:tag` or `id:tag`.

    Raises:
        HttpError: 404, there is no such template on this machine.
    """
    name, _, tag = reference.partition(":")
    for template in TEMPLATES:
        if template.is_called(name) and (not tag or tag in template.tags):
            return template
    known = ", ".join(template.alias for template in TEMPLATES)
    raise HttpError(404, f"template {reference!r} was not found; this local server has: {known}")
