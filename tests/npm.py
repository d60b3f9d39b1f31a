"""Packages of npm, installed where node and npm are, once, into pytest's cache; else whoever wants one is skipped."""

import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL_SECONDS_MAX = 60


def node(*, major_min: int) -> str:
    """The node that is here, and npm with it; the test is skipped where it is none or older."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        pytest.skip("no node and npm here")
    version = subprocess.run([found, "--version"], capture_output=True, check=True, text=True, timeout=30).stdout
    if int(version.removeprefix("v").partition(".")[0]) < major_min:
        pytest.skip(f"node {major_min} is wanted, here is {version.strip()}")
    return found


def installed(package: str, cache: pytest.Cache) -> Path:
    """The folder that *package* (name and version) is installed in; the test is skipped where it cannot be had."""
    folder = cache.mkdir(package.replace("@", "-"))
    mark = folder / "installed"  # written last: an install that was broken off is done again
    if not mark.exists():
        _install(package, folder)
        mark.touch()
    return folder


def _install(package: str, folder: Path) -> None:
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0", f"--prefix={folder}")
    command = [shutil.which("npm") or "npm", "install", *options, package]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, text=True, timeout=INSTALL_SECONDS_MAX, cwd=folder
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {package} within {INSTALL_SECONDS_MAX} s")
    if done.returncode != 0:
        pytest.skip(f"npm does not install {package}: {(done.stderr.splitlines() or ['no reason'])[0]}")
