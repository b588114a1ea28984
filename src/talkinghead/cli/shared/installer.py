"""Find the package installer of this environment."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec

from talkinghead.errors import DependencyError
from talkinghead.paths import NODEPS_REQUIREMENTS


def installer_command() -> list[str]:
    """Return the start of a command that installs hashed packages, with pip or else with uv.

    Raises:
        DependencyError: Neither pip nor uv is installed.
    """
    options = ["--no-deps", "--require-hashes"]
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", *options]
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--python", sys.executable, *options]
    raise DependencyError(
        f"this Python has no pip: run {sys.executable} -m ensurepip, "
        f"or install {NODEPS_REQUIREMENTS} with --no-deps yourself"
    )
