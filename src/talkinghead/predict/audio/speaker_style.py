"""Style of a speaker's lip motion, and files with the adaptation to a speaker.

Shape suffixes: N frames, F inputs of the lip motion map.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.media.atomic_file import atomic_path
from talkinghead.paths import file_problem
from talkinghead.predict.audio.visemes import PARTED
from talkinghead.value_rules import Range, check_fields

_RANGES = {
    "opening": (0.0, 4.0),
    "width": (0.0, 4.0),
    "upper_lip": (-0.5, 0.5),
    "rest_opening": (-10.0, 10.0),
    "smile": (-10.0, 10.0),
}
_UPPER, _LOWER = slice(13, 16), slice(17, 20)
# Weights of the lip points (ibug68) in a vertical motion of both lips between fixed corners.
_BOTH_LIPS = (0, 0.5, 1, 1, 1, 0.5, 0, 0.5, 1, 1, 1, 0.5, 0, 1, 1, 1, 0, 1, 1, 1)
# Weights of the lip points in a smile; the sign is the horizontal direction.
_CORNERS = (-1, -0.5, 0, 0, 0, 0.5, 1, 0.5, 0, 0, 0, -0.5, -1, 0, 0, 0, 1, 0, 0, 0)
_FORMAT = "talkinghead speaker 1"
# Prefix of the names of the decoder's tensors in the file.
_DECODER = "decoder."
NAMED_STYLES = Path(__file__).with_name("speaker_styles.json")
"""File with the styles of the training speakers, written by scripts/estimate_speaker_styles.py."""


@dataclass(frozen=True)
class SpeakerStyle:
    """Style of a speaker's lip motion, relative to the motion that the model predicts.

    The style is a linear change of the lip motion around the lips at rest. The default changes
    nothing.

    Attributes:
        opening: Factor of the vertical lip motion, 0 to 4.
        width: Factor of the horizontal lip motion, 0 to 4.
        upper_lip: Added fraction of the mouth opening by which the upper lip rises, -0.5 to 0.5.
        rest_opening: Added gap between the lips at rest, in pixels of the 256-pixel face, -10 to
            10.
        smile: Displacement of the corners of the mouth, upwards and outwards, in pixels of the
            256-pixel face, -10 to 10.

    Raises:
        UsageError: A value is out of range.

    Example:
        >>> LipSyncPredictor.from_checkpoint("default", style=SpeakerStyle(opening=1.3, smile=2))
        >>> LipSyncPredictor.from_checkpoint("default", style="grid_s4")
    """

    opening: Annotated[float, Range(0, 4)] = 1.0
    width: Annotated[float, Range(0, 4)] = 1.0
    upper_lip: Annotated[float, Range(-0.5, 0.5)] = 0.0
    rest_opening: Annotated[float, Range(-10, 10)] = 0.0
    smile: Annotated[float, Range(-10, 10)] = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "style.")

    @property
    def is_neutral(self) -> bool:
        """Whether the style changes nothing."""
        return self == SpeakerStyle()

    def then(self, other: SpeakerStyle) -> SpeakerStyle:
        """Return the style that applies this style and then `other`, within the ranges."""
        values = [
            first * second if name in ("opening", "width") else first + second
            for name, first, second in zip(_RANGES, astuple(self), astuple(other), strict=True)
        ]
        return SpeakerStyle.within_ranges(*values)

    @classmethod
    def within_ranges(cls, *values: float) -> SpeakerStyle:
        """Return the style with these values, limited to their ranges."""
        limits = zip(values, _RANGES.values(), strict=True)
        return cls(*(min(high, max(low, float(value))) for value, (low, high) in limits))

    @classmethod
    def named(cls, name: str) -> SpeakerStyle:
        """Return the style of a training speaker, such as "grid_s4" (see docs/speakers.md).

        Raises:
            UsageError: There is no style of this name.
        """
        styles = named_styles()
        if name not in styles:
            near = difflib.get_close_matches(name.lower(), styles, 1, 0)[0]
            raise UsageError(
                f"style={name}: there is no style of this name; did you mean {near}? The styles "
                f"are {', '.join(styles)}"
            )
        return styles[name]

    def apply(self, motion: Tensor, rest: Tensor) -> Tensor:
        """Return lip motion [N, 20, 2] in this style; `rest` [20, 2] is the motion of silence."""
        change = (motion - rest) * motion.new_tensor([self.width, self.opening])
        gap = signed_gap(change)[..., None]
        both_lips, parted, corners = (motion.new_tensor(w) for w in (_BOTH_LIPS, PARTED, _CORNERS))
        x = change[..., 0] + self.smile * corners
        y = change[..., 1] - self.upper_lip * gap * both_lips
        y = y + self.rest_opening * parted - self.smile * corners.abs()
        return rest + torch.stack([x, y], -1)


StyleInput: TypeAlias = SpeakerStyle | str | Mapping[str, float]
"""A style, the name of a training speaker, or a mapping with fields of `SpeakerStyle`."""


def read_style(value: StyleInput) -> SpeakerStyle:
    """Return the style of a style's name or of a mapping of its values.

    Raises:
        UsageError: The value is not a style, or a value is out of range.
    """
    if isinstance(value, SpeakerStyle):
        return value
    if isinstance(value, str):
        return SpeakerStyle.named(value)
    if isinstance(value, Mapping) and set(value) <= set(_RANGES):
        return SpeakerStyle(**value)
    raise UsageError(
        f"style={value}: expected the name of a style ({', '.join(named_styles())}), or values of "
        f"{', '.join(_RANGES)}"
    )


@cache
def named_styles() -> Mapping[str, SpeakerStyle]:
    """Return the styles of the training speakers by name, neutral first."""
    values: dict[str, dict[str, float]] = json.loads(NAMED_STYLES.read_text("utf-8"))
    styles = {name: SpeakerStyle(**style) for name, style in values.items()}
    return {"neutral": SpeakerStyle(), **styles}


def signed_gap(motion: Tensor) -> Tensor:
    """Return the mean gap [...] between the inner lips of [..., 20, 2], negative if pressed."""
    return motion[..., _LOWER, 1].mean(-1) - motion[..., _UPPER, 1].mean(-1)


@dataclass(frozen=True)
class SpeakerAdaptation:
    """Adaptation to a speaker, by calibration or `talkinghead personalise`.

    Attributes:
        style: the style of the speaker.
        weight: weight [F, 40] of the lip motion map; None keeps the map of the lip prior.
        bias: bias [40] of the map.
        report: measurements, of JSON types.
        decoder: tensors that replace those of the generator's decoder; empty keeps all.
    """

    style: SpeakerStyle = field(default_factory=SpeakerStyle)
    weight: Tensor | None = None
    bias: Tensor | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    decoder: Mapping[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        """Write a safetensors file.

        Raises:
            MediaError: The file cannot be written.
        """
        tensors = {"style": torch.tensor(astuple(self.style))}
        if self.weight is not None and self.bias is not None:
            tensors |= {"weight": self.weight.half().contiguous(), "bias": self.bias.float()}
        tensors |= {_DECODER + n: t.half().cpu().contiguous() for n, t in self.decoder.items()}
        metadata = {"format": _FORMAT, "report": json.dumps(dict(self.report))}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors, metadata))

    @classmethod
    def load(cls, path: Path | str) -> SpeakerAdaptation:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: The file is missing, broken or of another kind.
        """
        advice = "give a file that talkinghead personalise wrote, or leave it out"
        if problem := file_problem(path):
            raise CheckpointError(f"personalisation={path} {problem}: {advice}")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata.get("format") != _FORMAT:
                raise ValueError("it is of another format")
            style = SpeakerStyle(*tensors.pop("style").double().tolist())
            report = json.loads(metadata["report"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"personalisation={path} cannot be read ({error}): {advice}"
            ) from error
        decoder = {
            name.removeprefix(_DECODER): tensor.float()
            for name, tensor in tensors.items()
            if name.startswith(_DECODER)
        }
        return cls(style, tensors.get("weight"), tensors.get("bias"), report, decoder)


def describe(style: SpeakerStyle) -> str:
    """Return the values of a style that differ from the neutral style, for messages."""
    neutral = SpeakerStyle()
    values = ((f.name, getattr(style, f.name)) for f in fields(style))
    changed = [f"{name} {value:.2f}" for name, value in values if value != getattr(neutral, name)]
    return ", ".join(changed) or "neutral"
