"""`talkinghead completion`: print a completion script for a shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from talkinghead.cli.environment.shell_completion import SHELLS, completion_script
from talkinghead.cli.shared.command_output import CommandOutput
from talkinghead.errors import UsageError


def main(arguments: Sequence[str], commands: Mapping[str, str]) -> CommandOutput:
    """Return the completion script of the shell that the argument names."""
    if len(arguments) != 1:
        raise UsageError(f"talkinghead completion SHELL: choose {', '.join(SHELLS)}")
    script = completion_script(arguments[0], commands)
    return CommandOutput(script, {"shell": arguments[0], "script": script})
