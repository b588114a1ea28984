"""Clip files, which store prepared clips for random access to windows.

A clip file is a safetensors file. For `T` frames at the frame rate of the AVSpec, `M` mel frames
and `N` audio samples it contains:

- `jpeg` uint8 [num_bytes]: the aligned faces as concatenated JPEGs (quality 95; 4:4:4, so that no
  chroma sample mixes pixels across the edge of the mouth box); `offsets` int64 [T + 1], the
  positions of the JPEGs in `jpeg`
- `mel` float16 [num_mels, M]; `prosody` float16 [3, M]; `audio` int16 [N]
- `mouth_opening` float32 [T] and `lips` float32 [T, 20, 2] (canonical pixels), NaN where no face
  was found; `transforms` float32 [T, 2, 3]
- `head_pose` float32 [T, 3], in clips that have it: degrees, NaN where no face was found (see
  `talkinghead.features.faces.head_pose`)
- `mean_face` uint8 [3, face, face], the mean of all frames, and `mean_mouth` uint8 [3, mouth,
  mouth], its mouth region
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from talkinghead.errors import CorpusError
from talkinghead.features.audio_features import AudioFeatures, input_features
from talkinghead.features.faces.alignment import as_tensor, mouth_crop
from talkinghead.media.atomic_file import atomic_path
from talkinghead.types import AVSpec, FloatArray, UInt8Array

JPEG_QUALITY = 95
STORED_FEATURES = ("mel", "prosody")
"""Audio features stored in clip files; others are computed from `audio`."""

_FULL_SCALE = 32_767
_ENCODE = [
    cv2.IMWRITE_JPEG_QUALITY,
    JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]


@dataclass(frozen=True)
class ClipData:
    """Content of a clip file; the shapes are listed at the start of this module."""

    jpegs: list[bytes]
    mel: FloatArray
    prosody: FloatArray
    audio: FloatArray
    mouth_opening: FloatArray
    lips: FloatArray
    transforms: FloatArray
    mean_face: UInt8Array
    mean_mouth: UInt8Array
    head_pose: FloatArray | None = None


def encode_face(image: UInt8Array) -> bytes:
    """Encode a face, uint8 [height, width, 3] RGB, as JPEG."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _ENCODE)
    return data.tobytes()


def decode_face(jpeg: UInt8Array) -> UInt8Array:
    """Decode a JPEG to uint8 [height, width, 3] RGB.

    Raises:
        ValueError: The JPEG cannot be decoded.
    """
    # cv2.imdecode starts no threads. OpenCV's threads are missing in forked loader processes, which
    # would wait for them forever.
    image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("broken image")
    return np.asarray(image)


def mean_images(mean_face: UInt8Array, spec: AVSpec) -> dict[str, Any]:
    """Return the tensors `mean_face` and `mean_mouth` for a mean face, uint8 [face, face, 3]."""
    mouth = mouth_crop(as_tensor(mean_face[None]), spec)[0] * 255.0
    return {
        "mean_face": np.ascontiguousarray(mean_face.transpose(2, 0, 1)),
        "mean_mouth": mouth.round().clamp(0, 255).to(torch.uint8).numpy(),
    }


def write_clip(path: Path, data: ClipData, metadata: dict[str, str]) -> None:
    """Write a clip file atomically; its folder is created.

    `read_metadata` returns the metadata.
    """
    lengths = np.array([0, *map(len, data.jpegs)], np.int64)
    tensors = {
        "jpeg": np.frombuffer(b"".join(data.jpegs), np.uint8),
        "offsets": np.cumsum(lengths),
        "mel": data.mel.astype(np.float16),
        "prosody": data.prosody.astype(np.float16),
        "audio": np.clip(np.rint(data.audio * _FULL_SCALE), -32768, _FULL_SCALE).astype(np.int16),
        "mouth_opening": data.mouth_opening.astype(np.float32),
        "lips": data.lips.astype(np.float32),
        "transforms": data.transforms.astype(np.float32),
        "mean_face": data.mean_face,
        "mean_mouth": data.mean_mouth,
    }
    if data.head_pose is not None:
        tensors["head_pose"] = data.head_pose.astype(np.float32)
    blob = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(blob)


def read_clip_data(path: Path) -> ClipData:
    """Return the whole content of a clip file.

    Raises:
        CorpusError: The file is missing, broken or was written by an older version.
    """
    clip = ClipFile(path)
    blob, offsets = clip.tensor("jpeg").tobytes(), clip.tensor("offsets")
    names = ("mouth_opening", "lips", "transforms", "mean_face", "mean_mouth", "head_pose")
    return ClipData(
        jpegs=[blob[start:stop] for start, stop in pairwise(offsets)],
        mel=clip.mel(),
        prosody=clip.tensor("prosody").astype(np.float32),
        audio=clip.audio(),
        **{name: clip.tensor(name) for name in names},
    )


def read_metadata(path: Path) -> dict[str, str] | None:
    """Return a clip file's metadata, or None if the file is missing or incomplete."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return None


class ClipFile:
    """A memory-mapped clip file with random access to its frames and features.

    Raises:
        CorpusError: The file is missing or broken.

    Example:
        >>> clip = ClipFile("corpora/mine/clips/anna/take 1.safetensors")
        >>> clip.faces(0, 5).shape
        (5, 256, 256, 3)
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self._file: Any = safe_open(str(path), framework="numpy")
            self._offsets: npt.NDArray[np.int64] = self._file.get_tensor("offsets")
        except (OSError, SafetensorError) as error:
            raise CorpusError(
                f"clip {path} is missing or broken ({error}); "
                "run `talkinghead prepare` again, it prepares only missing clips"
            ) from error

    def __len__(self) -> int:
        """Return the number of video frames."""
        return len(self._offsets) - 1

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """Return a stored tensor.

        Raises:
            CorpusError: The clip has no such tensor.
        """
        if not self.has(name):
            raise CorpusError(
                f"clip {self.path} has no {name}: an older version made it; run `talkinghead "
                "prepare` again"
            )
        array: npt.NDArray[Any] = self._file.get_tensor(name)
        return array

    def mel(self) -> FloatArray:
        """Return the log-mel, float32 [num_mels, M]."""
        return self.tensor("mel").astype(np.float32)

    def audio(self) -> FloatArray:
        """Return the audio samples, float32 [N] in [-1, 1]."""
        return self.tensor("audio").astype(np.float32) / np.float32(_FULL_SCALE)

    def has(self, name: str) -> bool:
        """Return whether the file stores a tensor of this name."""
        return name in self._file.keys()  # noqa: SIM118 - the file itself cannot be searched

    def num_columns(self, name: str) -> int:
        """Return the size of the last axis of a stored tensor."""
        return int(self._file.get_slice(name).get_shape()[-1])

    def columns(self, name: str, start: int, stop: int) -> FloatArray:
        """Return the existing columns in [start, stop) of a stored feature, as float32."""
        part = self._file.get_slice(name)
        num_rows, num_columns = part.get_shape()
        start, stop = max(0, start), min(stop, num_columns)
        if start >= stop:
            return np.empty((num_rows, 0), np.float32)
        return np.asarray(part[:, start:stop], np.float32)

    def faces(self, start: int, stop: int) -> UInt8Array:
        """Return the aligned faces of frames [start, stop), uint8 [num_frames, face, face, 3] RGB.

        Raises:
            CorpusError: An image cannot be decoded.
        """
        begin, end = int(self._offsets[start]), int(self._offsets[stop])
        data = self._file.get_slice("jpeg")[begin:end]
        edges = self._offsets[start : stop + 1] - begin
        try:
            return np.stack([decode_face(data[a:b]) for a, b in pairwise(edges)])
        except ValueError as error:
            raise CorpusError(
                f"clip {self.path} has a broken image; "
                "delete the file and run `talkinghead prepare` again"
            ) from error


class ClipFeatureReader:
    """A reader of the audio features that a model needs.

    The features that a clip file stores (the log-mel and prosody) are read; others are computed
    from the audio of the clip.

    Attributes:
        names: The features in the order of the returned rows; see `input_features`.
    """

    def __init__(self, spec: AVSpec, names: Sequence[str] = ("mel",)) -> None:
        self.names = input_features(names)
        self._spec = spec
        self._features = {name: AudioFeatures(spec, (name,)) for name in self.names}

    def read(self, clip: ClipFile, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the features of the mel frames in [start, stop), without frames outside the clip.

        If `stop` is None, the features are returned up to the end of the clip.

        Returns:
            float32 [num_rows, num_frames].

        Raises:
            CorpusError: The clip stores neither a feature nor audio to compute it from.
        """
        stop = clip.num_columns("mel") if stop is None else min(stop, clip.num_columns("mel"))
        start = min(max(0, start), max(0, stop))
        return torch.cat(
            [self._rows(clip, name, start, max(start, stop)) for name in self._features]
        )

    def silence(self, num_frames: int) -> Tensor:
        """Return the features [num_rows, num_frames] of digital silence."""
        return torch.cat([features.silence(num_frames) for features in self._features.values()])

    def _rows(self, clip: ClipFile, name: str, start: int, stop: int) -> Tensor:
        if clip.has(name):
            return torch.from_numpy(clip.columns(name, start, stop))
        if not clip.has("audio"):
            raise CorpusError(
                f"clip {clip.path} stores neither {name} nor audio to compute it from: use other "
                "model.generator.audio_features, or run `talkinghead prepare` again"
            )
        features, spec = self._features[name], self._spec
        if start == stop:
            return features.silence(0)
        samples = torch.from_numpy(clip.audio())
        half = spec.n_fft // 2
        padded = torch.nn.functional.pad(samples, (half + 1, half))
        first = start * spec.hop_length
        size = (stop - start - 1) * spec.hop_length + spec.n_fft + 1
        return features.from_segment(padded[first : first + size])
