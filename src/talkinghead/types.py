"""Value types that every layer shares.

Imports numpy alone, so that importing the package stays instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from talkinghead.errors import UsageError

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

LUMA = (0.299, 0.587, 0.114)
"""How much red, green and blue count in brightness: ITU-R BT.601."""


class Box(NamedTuple):
    """An axis-aligned box in pixels; `x1` and `y1` are exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """In pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """In pixels."""
        return self.y1 - self.y0


@dataclass(frozen=True)
class AVSpec:
    """The one place for sample rate, hop, mel bins, frame rate, face and mouth size.

    It is stored in a corpus's manifest and in every checkpoint: training refuses a corpus whose
    spec differs from its own, and prediction takes the spec from the checkpoint.

    The audio features follow Wav2Lip's (Prajwal et al., 2020, arXiv:2008.10010): 16 kHz, 50 ms
    windows every 12.5 ms, 80 mel bins from 55 to 7600 Hz; 16 mel frames (200 ms) belong to one
    video frame at 25 Hz.
    """

    sample_rate: int = 16_000
    n_fft: int = 800
    hop_length: int = 200
    num_mels: int = 80
    fmin: float = 55.0
    fmax: float = 7600.0
    preemphasis: float = 0.97
    mel_window: int = 16
    fps_num: int = 25
    fps_den: int = 1
    face_size: int = 256
    mouth_size: int = 96
    # The mouth's box in the canonical face: (x0, y0, side). Multiples of 8, so that no JPEG block
    # crosses its edge.
    mouth_x: int = 56
    mouth_y: int = 112
    mouth_side: int = 144
    # What the generator may not see of the current face begins here within the box: below the nose,
    # which speech leaves alone and which shows where the head has turned.
    mask_top: int = 144

    def __post_init__(self) -> None:
        if (
            self.mouth_x + self.mouth_side > self.face_size
            or self.mouth_y + self.mouth_side > self.face_size
        ):
            raise UsageError(
                f"AVSpec: the mouth box ({self.mouth_x}, {self.mouth_y}) + {self.mouth_side} "
                "leaves the face of "
                f"{self.face_size} pixels; make it smaller or move it"
            )
        if not self.mouth_y <= self.mask_top < self.mouth_y + self.mouth_side:
            raise UsageError(
                f"AVSpec: mask_top {self.mask_top} lies outside the mouth box, rows {self.mouth_y} "
                f"to {self.mouth_y + self.mouth_side}"
            )
        for name in (
            "sample_rate",
            "n_fft",
            "hop_length",
            "num_mels",
            "mel_window",
            "fps_num",
            "fps_den",
        ):
            if getattr(self, name) <= 0:
                raise UsageError(f"AVSpec: {name} must be positive, got {getattr(self, name)}")

    @property
    def fps(self) -> Fraction:
        """Frames per second of the model's time grid, exact."""
        return Fraction(self.fps_num, self.fps_den)

    @property
    def mels_per_second(self) -> Fraction:
        """Mel frames per second, exact."""
        return Fraction(self.sample_rate, self.hop_length)

    @property
    def mouth_box(self) -> Box:
        """The mouth's box in the canonical face, in pixels."""
        return Box(
            self.mouth_x,
            self.mouth_y,
            self.mouth_x + self.mouth_side,
            self.mouth_y + self.mouth_side,
        )

    @property
    def mask_box(self) -> Box:
        """What is black in the masked_face: the mouth's box from `mask_top` down, in pixels."""
        return self.mouth_box._replace(y0=self.mask_top)

    def to_dict(self) -> dict[str, int | float]:
        """Plain numbers: what a manifest and a checkpoint store."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AVSpec:
        """Inverse of `to_dict`.

        Raises:
            UsageError: a key is unknown.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise UsageError(
                f"AVSpec has no {', '.join(unknown)}; it has "
                f"{', '.join(f.name for f in fields(cls))}"
            )
        return cls(**values)

    def difference(self, other: AVSpec) -> str:
        """The fields in which two specs differ, as `name: mine != theirs`.

        Empty when they agree.
        """
        mine, theirs = self.to_dict(), other.to_dict()
        return ", ".join(f"{k}: {v} != {theirs[k]}" for k, v in mine.items() if v != theirs[k])


@dataclass(frozen=True)
class AudioClip:
    """Mono speech: `samples` float32 [num_samples] in [-1, 1] at `sample_rate` Hz."""

    samples: FloatArray
    sample_rate: int

    @property
    def duration_s(self) -> Fraction:
        """Exact duration in seconds."""
        return Fraction(len(self.samples), self.sample_rate)


@dataclass(frozen=True)
class VideoFrame:
    """One decoded picture: `image` uint8 [height, width, 3] RGB, upright.

    `time_s` from the stream's first frame.
    """

    image: UInt8Array
    time_s: Fraction


@dataclass(frozen=True)
class Face:
    """A face found in one picture.

    `points` float32 [num_points, 2] are pixels (x, y) in the order of `topology`: "mesh468"
    (MediaPipe's FaceMesh) or "ibug68" (the 68-point scheme). `score` in [0, 1].
    """

    box: Box
    points: FloatArray
    score: float
    topology: str


@dataclass(frozen=True)
class FaceTrack:
    """One face through a clip.

    `transforms` float32 [num_frames, 2, 3] map source pixels to the canonical face (smoothed);
    `points` float32 [num_frames, num_points, 2] are source pixels, NaN where the face was not
    found; `found` bool [num_frames].
    """

    transforms: FloatArray
    points: FloatArray
    found: npt.NDArray[np.bool_]
    topology: str
