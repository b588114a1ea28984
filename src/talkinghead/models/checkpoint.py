"""Checkpoint format shared by training and inference.

A training checkpoint is Lightning's file with these additional plain entries; a release is a
safetensors file with the same entries as JSON in its metadata:

    {"schema_version": 1, "generator": {...}, "av": {...}, "license": "...", "trained_on": "..."}

Nothing is unpickled: files are read with `torch.load(weights_only=True)` or safetensors, and the
state dict must fit exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from talkinghead.errors import CheckpointError, TalkingHeadError
from talkinghead.media.atomic_file import atomic_path
from talkinghead.models.encoders import STRUCTURE_ONLY
from talkinghead.models.lip_motion_network import LipMotionNetwork
from talkinghead.models.lip_regressor import LipRegressor
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.models.tensor_files import read_plain_tensors
from talkinghead.paths import file_problem
from talkinghead.types import AVSpec

SCHEMA_VERSION = 1
GENERATOR, EXPERT = "generator", "sync_expert"
LIP_REGRESSOR, LIP_MOTION = "lip_regressor", "lip_motion"
_NETWORKS: dict[str, type[nn.Module]] = {
    GENERATOR: LipSyncGenerator,
    EXPERT: SyncDiscriminator,
    LIP_REGRESSOR: LipRegressor,
    LIP_MOTION: LipMotionNetwork,
}


@dataclass
class LoadedNetwork:
    """Network in evaluation mode, with its `AVSpec` and the entries of its checkpoint."""

    model: nn.Module
    spec: AVSpec
    meta: dict[str, Any]


def default_checkpoint(kind: str = GENERATOR) -> Path:
    """Return the path of the packaged weights of a kind of network."""
    name = "compact" if kind == GENERATOR else kind
    return Path(str(resources.files("talkinghead") / "weights" / f"{name}.safetensors"))


def resolve_checkpoint(path: str | Path, kind: str = GENERATOR) -> Path:
    """Return the path of a checkpoint; "default" is replaced by the packaged weights.

    Raises:
        CheckpointError: there is no such file.
    """
    resolved = default_checkpoint(kind) if str(path) == "default" else Path(path)
    if problem := file_problem(resolved):
        if str(path) == "default":
            raise CheckpointError(
                f"the packaged weights {resolved} are missing: reinstall the package, or give "
                "the path of a file"
            )
        raise CheckpointError(
            f"checkpoint {resolved} {problem}: give a .ckpt or .safetensors file, or "
            '"default" for the packaged weights'
        )
    return resolved


def spec_arguments(spec: AVSpec) -> dict[str, Any]:
    """Return the arguments of a generator that are defined by the `AVSpec`."""
    return {
        "num_mels": spec.num_mels,
        "mel_window": spec.mel_window,
        "face_size": spec.face_size,
        "mouth_size": spec.mouth_size,
        "mouth_box": (spec.mouth_x, spec.mouth_y, spec.mouth_side),
        "mask_top": spec.mask_top,
    }


def build(kind: str, arguments: Mapping[str, Any], spec: AVSpec) -> nn.Module:
    """Build a network with random weights from a checkpoint's arguments."""
    fixed = spec_arguments(spec)
    used = {
        GENERATOR: tuple(fixed),
        EXPERT: ("num_mels", "mel_window"),
        LIP_REGRESSOR: (),
        LIP_MOTION: ("num_mels",),
    }[kind]
    return _NETWORKS[kind](**{**arguments, **{name: fixed[name] for name in used}})


def load_generator(path: str | Path = "default") -> LoadedNetwork:
    """Load the generator, with averaged weights, in float32 on the CPU.

    The file is a release or a training checkpoint; "default" is that of the packaged weights.

    Raises:
        CheckpointError: the file is missing, truncated or of another schema, or its weights do not
            fit its model.
    """
    return _load(resolve_checkpoint(path, GENERATOR), GENERATOR)


def load_expert(path: str | Path = "default") -> LoadedNetwork:
    """Load a frozen sync expert; see `load_generator`."""
    return _load_frozen(path, EXPERT)


def load_lip_regressor(path: str | Path = "default") -> LoadedNetwork:
    """Load a frozen lip regressor; see `load_generator`."""
    return _load_frozen(path, LIP_REGRESSOR)


def load_lip_motion_network(path: str | Path = "default") -> LoadedNetwork:
    """Load a frozen network of lip motion; see `load_generator`."""
    return _load_frozen(path, LIP_MOTION)


def save_release(path: str | Path, kind: str, model: nn.Module, meta: Mapping[str, Any]) -> None:
    """Write a network to a safetensors file in half precision.

    Args:
        path: file to write.
        kind: `GENERATOR`, `EXPERT`, `LIP_REGRESSOR` or `LIP_MOTION`.
        model: the network.
        meta: entries: the arguments under `kind`, `av`, `license` and `trained_on`.

    Raises:
        CheckpointError: an entry is missing.
        MediaError: the file cannot be written.
    """
    state = {name: t.detach().half().contiguous() for name, t in model.state_dict().items()}
    entries = {"schema_version": SCHEMA_VERSION, **meta}
    missing = [key for key in (kind, "av", "license", "trained_on") if key not in entries]
    if missing:
        raise CheckpointError(f"a release needs {', '.join(missing)} in its metadata")
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state, {"talkinghead": json.dumps(entries)}))


def _load_frozen(path: str | Path, kind: str) -> LoadedNetwork:
    loaded = _load(resolve_checkpoint(path, kind), kind)
    loaded.model.requires_grad_(False)
    return loaded


def _load(path: Path, kind: str) -> LoadedNetwork:
    state, entries = _read_release(path) if path.suffix == ".safetensors" else _read_training(path)
    _check_schema(path, kind, entries)
    if path.suffix != ".safetensors":
        state = _select(path, kind, state)
    try:
        spec = AVSpec.from_dict(entries["av"])
        # The file contains all weights, so pretrained weights need not be loaded first.
        structure = {"face_encoder_weights": STRUCTURE_ONLY}
        pretrained = entries[kind].get("face_encoder_weights")
        model = build(kind, {**entries[kind], **(structure if pretrained else {})}, spec)
        model.load_state_dict({name: t.float() for name, t in state.items()}, strict=True)
    except (TypeError, RuntimeError, TalkingHeadError) as error:
        # The first line of an error of `load_state_dict` only introduces the others.
        reason = " ".join(" ".join(str(error).splitlines()[:2]).split())[:200]
        raise CheckpointError(
            f"checkpoint {path} does not fit this version's {kind} ({reason}): use the version "
            "that wrote it, or export it again"
        ) from error
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"checkpoint {path} has NaN or infinite values in {name}: use an earlier checkpoint"
            )
    return LoadedNetwork(model.eval(), spec, entries)


def _read_release(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), "pt") as file:
            entries = json.loads((file.metadata() or {}).get("talkinghead", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, entries  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"checkpoint {path} is truncated or not a safetensors file ({error}): download or "
            "export it again"
        ) from error


def _read_training(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    content = read_plain_tensors(path)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointError(
            f"checkpoint {path} contains no state_dict: it is not a training checkpoint"
        )
    return content["state_dict"], content


def _check_schema(path: Path, kind: str, entries: Mapping[str, Any]) -> None:
    version = entries.get("schema_version")
    if version != SCHEMA_VERSION:
        found = "no schema_version" if version is None else f"schema_version {version}"
        raise CheckpointError(
            f"checkpoint {path} has {found}, this version reads {SCHEMA_VERSION}: it was written "
            'by another program or version; use "default" or one that this version trained'
        )
    for key in (kind, "av"):
        if not isinstance(entries.get(key), Mapping):
            raise CheckpointError(f"checkpoint {path} has no {key!r}: it holds no {kind}")


def _select(path: Path, kind: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a network from a LightningModule's, averaged ones if available."""
    prefixes = (f"ema.{kind}.", f"{kind}.") if kind == GENERATOR else (f"{kind}.",)
    for prefix in prefixes:
        chosen = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        if chosen:
            return chosen
    raise CheckpointError(f"checkpoint {path} has no weights of a {kind}")
