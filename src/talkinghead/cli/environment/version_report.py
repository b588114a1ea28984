"""Report the version of the program with the device and the weights that it uses."""

from __future__ import annotations

import hashlib

import talkinghead
from talkinghead.cli.shared.command_output import CommandOutput
from talkinghead.errors import TalkingHeadError


def report_version() -> CommandOutput:
    """Return the version, the device selected by `device=auto`, and the packaged weights."""
    # Fall back to a reason, because bug reports need the version of a broken installation too.
    try:
        import torch

        from talkinghead.runtime.device import resolve_device

        device = f"{resolve_device('auto')} (torch {torch.__version__})"
    except (ImportError, OSError) as error:
        device = f"unknown: {' '.join(str(error).split())}"
    try:
        weights = _weights()
    except (ImportError, OSError, TalkingHeadError) as error:
        weights = f"unknown: {' '.join(str(error).split())}"
    result = {"version": talkinghead.__version__, "device": device, "weights": weights}
    text = f"talkinghead {talkinghead.__version__}\ndevice: {device}\nweights: {weights}\n"
    return CommandOutput(text, result)


def _weights() -> str:
    """Return the name, the start of the SHA-256, and the licence of the packaged weights."""
    from talkinghead.models.checkpoint import load_generator, resolve_checkpoint

    path = resolve_checkpoint("default")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return f"{path.name}, SHA-256 {digest}, {load_generator(path).meta['license']}"
