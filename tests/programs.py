"""The programs that vendors write their examples for: curl, Python's requests, JavaScript's fetch."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest


class Program(NamedTuple):
    """An example and what runs it."""

    path: str
    option: str
    """How its text is handed over."""
    text: str

    async def run(self, place: Mapping[str, str]) -> list[Any]:
        """What it prints, an answer a line, with what *place* puts in place of the document's names."""
        text = self.text
        for theirs, ours in place.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        process = await asyncio.create_subprocess_exec(
            self.path, self.option, text, stdout=PIPE, stderr=PIPE, env=environment
        )
        try:
            async with asyncio.timeout(30):
                said, complained = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, complained
        return [json.loads(line) for line in said.decode().splitlines()]


def _python_with_requests() -> str | None:
    """A Python on this machine that has requests; ours need not."""
    for found in (sys.executable, shutil.which("python3"), shutil.which("python3", path=os.defpath)):
        if found and subprocess.run([found, "-c", "import requests"], capture_output=True, check=False).returncode == 0:
            return found
    return None


def _node_with_fetch() -> str | None:
    """A Node.js that has fetch by itself."""
    found = shutil.which("node")
    asked = found and subprocess.run([found, "-e", "process.exit(typeof fetch === 'function' ? 0 : 1)"], check=False)
    return found if asked and asked.returncode == 0 else None


_FOUND = {
    "curl": (shutil.which("bash") if shutil.which("curl") else None, "-c"),
    "requests": (_python_with_requests(), "-c"),
    "fetch": (_node_with_fetch(), "-e"),
}


def with_every_program(curl: str, requests: str, fetch: str) -> pytest.MarkDecorator:
    """Run a test with its *program* being each of the three; those that are not there are skipped."""
    texts = {"curl": curl, "requests": requests, "fetch": fetch}
    rows = [
        pytest.param(
            Program(path or "", option, texts[name]),
            id=name,
            marks=pytest.mark.skipif(path is None, reason=f"no {name} here"),
        )
        for name, (path, option) in _FOUND.items()
    ]
    return pytest.mark.parametrize("program", rows)
