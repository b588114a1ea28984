"""Load and publish checkpoints through the Hugging Face hub, or a folder with the same files.

A repository or folder has `model.safetensors` (a release, see `models.checkpoint`), `config.json`
(the arguments of the generator and its AVSpec, for information) and `README.md` (the model card).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

import talkinghead
from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.media.atomic_file import atomic_path
from talkinghead.models.checkpoint import GENERATOR, SCHEMA_VERSION, load_generator
from talkinghead.runtime.model_card import format_card

WEIGHTS_NAME = "model.safetensors"
"""Name of the weights in a repository or folder."""
CONFIG_NAME = "config.json"
"""Name of the configuration in a repository or folder."""

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_ENTRIES = ("av", "license", "trained_on", GENERATOR)


def find_pretrained(name: str | Path, revision: str | None = None) -> Path:
    """Return the weights of a folder written by `save_pretrained`, or of a name on the hub.

    A model on the hub is downloaded once, and then found in the cache without the network.

    Args:
        name: A folder, or OWNER/NAME on the hub.
        revision: Branch, tag or commit on the hub; None for the newest.

    Raises:
        CheckpointError: There is no such folder, or the hub has no such model, or it cannot be
            reached.
        DependencyError: The package huggingface_hub is missing.
        UsageError: A revision was given for a folder, or the name is invalid.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise UsageError(f"revision={revision} is for names on the hub; {name} is a folder")
        weights = folder / WEIGHTS_NAME
        if not weights.is_file():
            raise CheckpointError(
                f"{name} has no {WEIGHTS_NAME}: give a folder that save_pretrained wrote"
            )
        return weights
    if not _NAME.fullmatch(str(name)):
        raise UsageError(f"{name} is neither a folder nor OWNER/NAME of a model on the hub")
    checkpoint = _explained(
        str(name), lambda: _hub_class().from_pretrained(name, revision=revision), revision
    )
    return Path(checkpoint.path)


def save_pretrained(
    checkpoint: str | Path, folder: str | Path, scores: str | Path | None = None
) -> None:
    """Write a checkpoint to a folder for `find_pretrained`, with a model card.

    An existing model card is kept.

    Args:
        checkpoint: A .ckpt or .safetensors file, or "default".
        folder: Folder to write.
        scores: The scores.json of `talkinghead evaluate`, for the figures of the model card.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DependencyError: The package huggingface_hub is missing.
    """
    _hub_class()(checkpoint, scores).save_pretrained(folder)


def push_to_hub(
    checkpoint: str | Path, name: str, scores: str | Path | None = None, **options: Any
) -> str:
    """Publish a checkpoint on the hub, and return the URL of the commit.

    Args:
        checkpoint: A .ckpt or .safetensors file, or "default".
        name: OWNER/NAME; the repository is created if it does not exist.
        scores: The scores.json of `talkinghead evaluate`, for the figures of the model card.
        **options: Keyword arguments of `huggingface_hub.ModelHubMixin.push_to_hub`, such as
            `private` and `commit_message`.

    Raises:
        CheckpointError: The checkpoint cannot be used, or the hub refuses it or cannot be reached.
        DependencyError: The package huggingface_hub is missing.
        UsageError: The name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name} is not a name on the hub: give OWNER/NAME")
    published = _hub_class()(checkpoint, scores)
    branch = options.get("branch")
    url = _explained(name, lambda: published.push_to_hub(name, **options), branch)
    return str(url)


@cache
def _hub_class() -> Any:
    """Return the class that connects a checkpoint with the hub."""
    try:
        from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
    except ImportError as error:
        raise DependencyError(
            f"models on the hub need huggingface_hub ({error}): pip install 'talkinghead[hub]'"
        ) from error

    class HubCheckpoint(ModelHubMixin, library_name="talkinghead"):
        """A checkpoint file that is read from or written to a repository."""

        def __init__(self, path: str | Path, scores: str | Path | None = None) -> None:
            self.path, self.scores = path, scores

        def _save_pretrained(self, save_directory: Path) -> None:
            write_files(self.path, save_directory)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, **options: Any) -> HubCheckpoint:
            return cls(hf_hub_download(model_id, WEIGHTS_NAME, **options))

        def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
            return ModelCard(format_card(self.path, load_generator(self.path).meta, self.scores))

    return HubCheckpoint


def write_files(checkpoint: str | Path, folder: Path) -> None:
    """Write the weights and the configuration of a checkpoint to a folder.

    The weights are in half precision if this loses nothing, as for releases, else in full.
    """
    loaded = load_generator(checkpoint)
    entries = {name: loaded.meta[name] for name in _ENTRIES if name in loaded.meta}
    entries = {"schema_version": SCHEMA_VERSION, "license": "unknown", **entries}
    state = {name: tensor.contiguous() for name, tensor in loaded.model.state_dict().items()}
    halves = {name: tensor.half() for name, tensor in state.items()}
    if all(torch.equal(halves[name].float(), tensor) for name, tensor in state.items()):
        state = halves
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        temporary.write_bytes(save(state, {"talkinghead": json.dumps(entries)}))
    config = {"talkinghead_version": talkinghead.__version__, **entries}
    with atomic_path(folder / CONFIG_NAME) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _explained(name: str, access: Callable[[], Any], revision: str | None) -> Any:
    """Return the result of an access to the hub, with its errors as messages of one line."""
    from huggingface_hub import errors

    try:
        return access()
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the hub has no model {name}, or it is private: check the name at huggingface.co, or "
            "log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{name} has no revision {revision or 'main'}: give another branch, tag or commit"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name} is not in the cache, and the hub cannot be reached: connect to the network "
            "once, or give a folder or checkpoint=default"
        ) from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(
            f"{name} has no {WEIGHTS_NAME}: it is not a model of talkinghead"
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the hub refused {name} or cannot be reached ({reason}): check the network and your "
            "login, or give a folder"
        ) from error
