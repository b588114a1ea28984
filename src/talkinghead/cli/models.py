"""`talkinghead models`: list the models that are packaged, installed or cached."""

from __future__ import annotations

from talkinghead.cli.environment.model_list import list_models
from talkinghead.cli.shared.command_output import CommandOutput


def main() -> CommandOutput:
    """List models with their sizes and paths."""
    return list_models()
