"""Running a script in a sandbox, and what it says."""

from __future__ import annotations

import asyncio
import os

from sandbox_local.isolation.base import Box, Command


async def run(box: Box, script: str, user: str, *arguments: str) -> str:
    """Run a script of bash to its end; returns its output.

    Raises:
        OSError: It could not be started.
    """
    process = await box.spawn(Command(["/bin/bash", "-c", script, "bash", *arguments], user))
    assert process.stdout is not None
    assert process.stderr is not None
    output, _ = await asyncio.gather(_read(process.stdout), _read(process.stderr))
    await process.exit
    return output


async def _read(fd: int) -> str:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    try:
        return (await reader.read()).decode("utf-8", "replace")
    finally:
        transport.close()
