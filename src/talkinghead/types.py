"""Value types shared by all layers.

Only NumPy is imported, to keep `import talkinghead` fast.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from talkinghead.errors import UsageError
from talkinghead.value_rules import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    UnitFloat,
    check_fields,
)

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luma, from ITU-R BT.601."""


class Box(NamedTuple):
    """Axis-aligned box in pixels; `x1` and `y1` are exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y1 - self.y0

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (x, y) in pixels."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


GENERATOR_FIELDS = frozenset({"mask_top"})
"""Fields of an `AVSpec` that only the generator depends on; corpora and sync experts do not."""


@dataclass(frozen=True)
class AVSpec:
    """Audio and video constants that a corpus and a model must share.

    The spec is stored in a corpus's manifest and in every checkpoint. Training refuses a corpus
    with another spec; prediction uses the spec of the checkpoint.

    The audio constants are those of Wav2Lip (Prajwal et al., 2020, arXiv:2008.10010).

    Attributes:
        sample_rate: audio sample rate in Hz.
        n_fft: number of samples in an analysis frame (50 ms).
        hop_length: number of samples between the starts of analysis frames (12.5 ms).
        num_mels: number of mel bins.
        fmin: lowest mel frequency in Hz.
        fmax: highest mel frequency in Hz.
        preemphasis: coefficient of the first-order pre-emphasis filter.
        mel_window: number of mel frames in the window of a video frame (200 ms).
        fps_num: numerator of the model's frame rate.
        fps_den: denominator of the model's frame rate.
        face_size: side of the canonical face in pixels.
        mouth_size: side of the generated mouth in pixels.
        mouth_x: left edge of the mouth box in the canonical face.
        mouth_y: top edge of the mouth box. The box's edges are multiples of 8, so that they do not
            cut JPEG blocks.
        mouth_side: side of the mouth box.
        mask_top: first row hidden from the generator in the current face, below the nose: the nose
            shows the head's direction and does not move with speech.

    Raises:
        UsageError: a value is not positive, or the boxes do not fit.

    Example:
        >>> AVSpec(fps_num=30).mels_per_second / 30
        Fraction(8, 3)
    """

    sample_rate: PositiveInt = 16_000
    n_fft: PositiveInt = 800
    hop_length: PositiveInt = 200
    num_mels: PositiveInt = 80
    fmin: NonNegativeFloat = 55.0
    fmax: PositiveFloat = 7600.0
    preemphasis: UnitFloat = 0.97
    mel_window: PositiveInt = 16
    fps_num: PositiveInt = 25
    fps_den: PositiveInt = 1
    face_size: PositiveInt = 256
    mouth_size: PositiveInt = 96
    mouth_x: NonNegativeInt = 56
    mouth_y: NonNegativeInt = 112
    mouth_side: PositiveInt = 144
    mask_top: NonNegativeInt = 144

    def __post_init__(self) -> None:
        if max(self.mouth_x, self.mouth_y) + self.mouth_side > self.face_size:
            raise UsageError(
                f"AVSpec: the mouth box ({self.mouth_x}, {self.mouth_y}) + {self.mouth_side} "
                f"is not inside the face of {self.face_size} pixels; make it smaller or move it"
            )
        if not self.mouth_y <= self.mask_top < self.mouth_y + self.mouth_side:
            raise UsageError(
                f"AVSpec: mask_top {self.mask_top} is outside the mouth box, rows {self.mouth_y} "
                f"to {self.mouth_y + self.mouth_side}"
            )
        sizes = ("sample_rate", "n_fft", "hop_length", "num_mels", "mel_window")
        for name in (*sizes, "fps_num", "fps_den"):
            if getattr(self, name) <= 0:
                raise UsageError(f"AVSpec: {name} must be positive, got {getattr(self, name)}")

    @property
    def fps(self) -> Fraction:
        """Exact frame rate of the model in frames per second."""
        return Fraction(self.fps_num, self.fps_den)

    @property
    def mels_per_second(self) -> Fraction:
        """Exact number of mel frames per second."""
        return Fraction(self.sample_rate, self.hop_length)

    @property
    def mouth_box(self) -> Box:
        """Mouth box in the canonical face, in pixels."""
        x, y, side = self.mouth_x, self.mouth_y, self.mouth_side
        return Box(x, y, x + side, y + side)

    @property
    def mask_box(self) -> Box:
        """Area that is black in a masked face, in pixels: the mouth box from row `mask_top` on."""
        return self.mouth_box._replace(y0=self.mask_top)

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields as plain numbers, for a manifest or a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AVSpec:
        """Build a spec from the result of `to_dict`.

        Raises:
            UsageError: a key is unknown.
        """
        names = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(names)):
            raise UsageError(f"AVSpec has no {', '.join(unknown)}; it has {', '.join(names)}")
        return cls(**values)

    def difference(self, other: AVSpec, ignored: Collection[str] = ()) -> str:
        """Return the differing fields of two specs as `name: own != other`; empty if equal."""
        others = other.to_dict()
        own = {name: value for name, value in self.to_dict().items() if name not in ignored}
        return ", ".join(f"{k}: {v} != {others[k]}" for k, v in own.items() if v != others[k])


@dataclass(frozen=True)
class AudioClip:
    """Mono speech with `samples`, float32 [num_samples] in [-1, 1], at `sample_rate` Hz."""

    samples: FloatArray
    sample_rate: int

    @property
    def duration_s(self) -> Fraction:
        """Exact duration in seconds."""
        return Fraction(len(self.samples), self.sample_rate)


@dataclass(frozen=True)
class VideoFrame:
    """Decoded video frame with an upright RGB image and an exact time.

    `image` is uint8 [H, W, 3]; `time_s` is the time since the first frame in seconds. `pts` is the
    timestamp in the file, None if unknown; `is_key` states whether decoding can start there.
    """

    image: UInt8Array
    time_s: Fraction
    pts: int | None = None
    is_key: bool = False


Preset: TypeAlias = Literal[
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
]
"""Name of a preset of x264."""


@dataclass(frozen=True)
class EncodeOptions:
    """Quality, speed and pixel format of the video encoder.

    Attributes:
        crf: x264 quality from 0 (lossless) to 51; 18 is visually near the source. WebM uses the
            corresponding quality of VP9.
        preset: x264 trade-off of speed and size, from "ultrafast" to "veryslow".
        pix_fmt: "yuv420p", which all players play, with even sizes; or "yuv444p" for exact colours
            and odd sizes, which phones, QuickTime and hardware decoders do not play.
        encoder: "software"; "hardware" for the first hardware encoder that works; or the name of
            one, such as h264_nvenc. If none works, a warning is logged and software is used.
        keep_tracks: Keep the other audio tracks, the subtitles, the chapters and the metadata of a
            video, as far as the format of the output supports them.
        hdr: HDR10 and HLG video: "convert" tone-maps it to standard dynamic range; "keep" writes 10
            bits with the colours of the source, as HEVC or, in WebM, AV1.
        background: Audio under the speech: "none"; "keep" for the stereo audio of the video without
            its voice (the centre above 120 Hz is removed); or a file, such as the music alone.

    Raises:
        UsageError: A value is of another type or out of range.
    """

    crf: Annotated[int, Range(0, 51)] = 18
    preset: Preset = "veryfast"
    pix_fmt: Literal["yuv420p", "yuv444p"] = "yuv420p"
    encoder: str = "software"
    keep_tracks: bool = False
    hdr: Literal["convert", "keep"] = "convert"
    background: str | Path = "none"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Face:
    """Face found in one image.

    `points` float32 [num_points, 2] are pixels (x, y) in the order of `topology`: "mesh468"
    (MediaPipe's FaceMesh) or "ibug68" (the 68-point scheme). `score` in [0, 1]. `depth` float32
    [num_points] is the distance of each point towards the camera in pixels, from an unknown origin;
    None if the detector does not measure it.
    """

    box: Box
    points: FloatArray
    score: float
    topology: str
    depth: FloatArray | None = None


@dataclass(frozen=True)
class FaceTrack:
    """Track of one face through all frames of a clip.

    `transforms` float32 [num_frames, 2, 3] map source pixels to the canonical face (smoothed);
    `points` float32 [num_frames, num_points, 2] are source pixels, NaN where the face was not
    found; `found` bool [num_frames].
    """

    transforms: FloatArray
    points: FloatArray
    found: npt.NDArray[np.bool_]
    topology: str
