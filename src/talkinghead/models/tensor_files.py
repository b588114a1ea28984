"""Reading of files written by `torch.save`, without unpickling arbitrary objects."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from talkinghead.errors import CheckpointError
from talkinghead.paths import file_problem


def read_plain_tensors(path: str | Path) -> Any:
    """Load a file written by `torch.save` to the CPU, without unpickling arbitrary objects.

    Raises:
        CheckpointError: the file is missing or truncated, or contains objects other than plain
            tensors.
    """
    if problem := file_problem(path):
        raise CheckpointError(f"checkpoint {path} {problem}: give a file written by torch.save")
    try:
        with warnings.catch_warnings():
            # For pickles of other programs, torch asks to report an issue.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        reason = (
            str(error).splitlines()[0].split(". ")[0][:120] if str(error) else type(error).__name__
        )
        if isinstance(error, EOFError):
            reason = "it ends early"
        elif isinstance(error, pickle.UnpicklingError | KeyError):
            reason = "another kind of file, or objects other than tensors"
        raise CheckpointError(
            f"checkpoint {path} is truncated or no checkpoint of plain tensors ({reason}): use "
            "an earlier checkpoint"
        ) from error
