"""Output of a command as text for people or as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from talkinghead.errors import TalkingHeadError, UsageError

FORMATS = ("text", "json")
"""Values of `output_format=`."""


@dataclass(frozen=True)
class CommandOutput:
    """Output of a command that reports something.

    Attributes:
        text: The report as text.
        result: The report as JSON values.
        failure: Error to raise after the report, if any.
    """

    text: str
    result: Any
    failure: TalkingHeadError | None = None


def take_format(arguments: list[str]) -> tuple[bool, list[str]]:
    """Return whether the output is JSON, and the arguments without `output_format=`.

    Raises:
        UsageError: The format is unknown.
    """
    name = "output_format="
    formats = [argument.removeprefix(name) for argument in arguments if argument.startswith(name)]
    if unknown := set(formats) - set(FORMATS):
        raise UsageError(f"output_format={unknown.pop()}: choose {' or '.join(FORMATS)}")
    rest = [argument for argument in arguments if not argument.startswith(name)]
    return formats[-1:] == ["json"], rest


def format_json(
    command: str, exit_status: int, result: Any, error: BaseException | None, message: str | None
) -> str:
    """Return the outcome of a command as one line of JSON, in ASCII for any encoding of stdout."""
    outcome = {
        "command": command,
        "exit_status": exit_status,
        "result": result,
        "error": error and {"type": type(error).__name__, "message": message},
    }
    return json.dumps(outcome, default=str) + "\n"
