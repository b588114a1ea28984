"""`talkinghead doctor`: check the installation, and say what to do about each problem."""

from __future__ import annotations

from talkinghead.cli.environment.installation_checks import report_installation
from talkinghead.cli.shared.command_output import CommandOutput


def main() -> CommandOutput:
    """Check platform, packages, devices, encoders and weights."""
    return report_installation()
