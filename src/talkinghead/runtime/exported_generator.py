"""A generator that runs the files written by `talkinghead export`.

Shape suffixes: N frames, W audio windows, D token dimension.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.models.lipsync.decoder import ContextFeatures, GeneratorOutput, ReferenceFeatures
from talkinghead.models.lipsync.lip_head import LipHead
from talkinghead.runtime.inference_runtimes import READABLE_SUFFIXES, file_loader
from talkinghead.types import AVSpec

METADATA = "talkinghead.json"
"""File that describes an export: the AVSpec, the names of the inputs and outputs, the licence."""
LIP_HEAD = "lip_head.safetensors"
"""File of the linear layer from tokens to lip motion: weight [40, D] and bias [40], float32."""
EXPORT_VERSION = 6
"""Version of the exported files. Increase it whenever an input, an output, a name, or what the
generator computes changes."""
PARTS = ("encode_reference", "encode_context", "encode_audio", "decode")
"""Calls of the generator. Each is exported as one file."""
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "executorch": ".pte"}
"""File suffix of each export format."""
_METADATA_KEYS = {"format", "av", "context_frames", "lookahead_frames", "input_features"}
_METADATA_KEYS |= {"needs_head_pose", "emotions"}
RUNTIMES = {"onnx": "onnx", "torchscript": "torch", "executorch": "executorch"}
"""Default runtime of each export format."""


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of an export.

    Raises:
        CheckpointError: the folder is not an export, or has another export version.
    """
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        if not isinstance(metadata, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {folder} is a folder without a readable {METADATA}: give a .ckpt or "
            ".safetensors file, or a folder that talkinghead export wrote"
        ) from error
    version = metadata.get("export_version")
    if version != EXPORT_VERSION:
        raise CheckpointError(
            f"checkpoint {folder} has export_version {version}, this version reads "
            f"{EXPORT_VERSION}: export the model again with talkinghead export"
        )
    if missing := sorted(_METADATA_KEYS - metadata.keys()):
        raise CheckpointError(
            f"checkpoint {folder}: {METADATA} has no {', '.join(missing)}: export the model again "
            "with talkinghead export"
        )
    return metadata


@dataclass
class ExportedEmotions:
    """Emotion names of an exported generator and the default's index, for `choose_emotion`."""

    names: list[str]
    default: int = 0


class ExportedGenerator:
    """A generator that runs exported model files on the CPU in full precision.

    Example::

        generator = ExportedGenerator("exported", runtime="openvino")
        predictor = LipSyncPredictor(generator, generator.spec)

    Args:
        folder: folder written by `talkinghead export`.
        runtime: "onnx" (ONNX Runtime), "openvino", "torch" (for TorchScript) or "executorch".

    Attributes:
        spec: the AVSpec that the model was trained for.
        emotion: the model's emotions, None for a model without emotions.

    Raises:
        CheckpointError: the folder is not an export, has another version, or a file is broken.
        DependencyError: the runtime is not installed.
        UsageError: the runtime does not read the folder's format.
    """

    def __init__(self, folder: str | Path, runtime: str) -> None:
        folder = Path(folder)
        metadata = read_metadata(folder)
        self.spec = AVSpec.from_dict(metadata["av"])
        self.context_frames: int = metadata["context_frames"]
        self.lookahead_frames: int = metadata["lookahead_frames"]
        self.input_features: tuple[str, ...] = tuple(metadata["input_features"])
        self.needs_head_pose: bool = metadata["needs_head_pose"]
        self.emotion = ExportedEmotions(names) if (names := metadata["emotions"]) else None
        self.device = torch.device("cpu")
        self.max_mouth_scale = 1  # Exported graphs have a fixed size.
        self._max_windows: int | None = metadata.get("max_windows")
        load, suffix = file_loader(runtime), SUFFIXES[metadata["format"]]
        if suffix != READABLE_SUFFIXES[runtime]:
            readable = next(f for f, s in SUFFIXES.items() if s == READABLE_SUFFIXES[runtime])
            raise UsageError(
                f"checkpoint {folder} is in the format {metadata['format']}, which backend="
                f"{runtime} does not read: choose backend=auto, or export it as {readable}"
            )
        try:
            head = load_file(folder / LIP_HEAD)
            self._lip_head = LipHead(head["weight"].shape[1]).requires_grad_(False)
            self._lip_head.load_state_dict(head)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            message = f"{folder / LIP_HEAD} cannot be read ({error}): export it again"
            raise CheckpointError(message) from error
        self._parts = {part: load(folder / f"{part}{suffix}") for part in PARTS}

    def encode_reference(
        self, reference_face: Tensor, reference_lips: Tensor, emotion: Tensor | None = None
    ) -> ReferenceFeatures:
        """Encode a face [1, 3, H, W] in [0, 1] with lips [1, 20, 2] in canonical pixels.

        `emotion`, int64 [1], is used by models with emotions only; None is the default emotion.
        """
        inputs = [reference_face, reference_lips]
        if self.emotion is not None:
            inputs.append(torch.tensor([self.emotion.default]) if emotion is None else emotion)
        token, mouth, lips, masked_face, *maps = self._run("encode_reference", *inputs)
        return ReferenceFeatures(token, mouth, lips, masked_face, maps)

    def encode_context(
        self, masked_face: Tensor, reference: ReferenceFeatures, head_turn: Tensor | None = None
    ) -> ContextFeatures:
        """Encode masked faces [N, 3, H / 2, W / 2] in [0, 1].

        `head_turn`, degrees [N, 3], is used by models with head pose only; None is no turn.
        """
        inputs = [masked_face, reference.masked_face]
        if self.needs_head_pose:
            inputs.append(torch.zeros(len(masked_face), 3) if head_turn is None else head_turn)
        token, *maps = self._run("encode_context", *inputs)
        return ContextFeatures(token, maps)

    def encode_audio(self, audio: Tensor, reference: ReferenceFeatures) -> Tensor:
        """Encode audio windows [1, W, C, K] as tokens [1, W, D]."""
        past, ahead, count = self.context_frames, self.lookahead_frames, audio.shape[1]
        # Each segment includes the context and look-ahead windows, so tokens do not depend on
        # the segmentation.
        step = self._max_windows - past - ahead if self._max_windows else count
        segments = []
        for start in range(0, count, step):
            first = max(0, start - past)
            windows = audio[:, first : start + step + ahead]
            (tokens,) = self._run("encode_audio", windows, reference.token)
            segments.append(tokens[:, start - first : start - first + step])
        return torch.cat(segments, dim=1)

    def decode_lip_motion(self, tokens: Tensor) -> Tensor:
        """Return the lip motion [..., 20, 2] of tokens [..., D], relative to closed lips."""
        motion: Tensor = self._lip_head(tokens)
        return motion

    def set_lip_motion(self, tokens: Tensor, lips: Tensor, blend_weight: float = 1.0) -> Tensor:
        """Return a copy of the tokens [..., D] that encodes the lip motion [..., 20, 2]."""
        return self._lip_head.set_motion(tokens, lips, blend_weight)

    def decode(
        self, tokens: Tensor, reference: ReferenceFeatures, context: ContextFeatures
    ) -> GeneratorOutput:
        """Decode tokens [N, D]; `context` has N entries, or one entry for all frames."""
        # Expand to one context entry per frame: an exported axis cannot have the size "1 or N".
        contexts = (t.expand(len(tokens), *t.shape[1:]) for t in (context.token, *context.maps))
        references = (reference.token, reference.mouth, reference.lips, *reference.maps)
        return GeneratorOutput(*self._run("decode", tokens, *references, *contexts))

    def _run(self, part: str, *inputs: Tensor) -> list[Tensor]:
        outputs = self._parts[part]([np.ascontiguousarray(t.numpy()) for t in inputs])
        return [torch.from_numpy(output) for output in outputs]
