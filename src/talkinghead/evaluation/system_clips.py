"""Reading and pairing of the videos that `score` compares.

Shape suffixes: T video frames, P landmarks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import MediaError, UsageError
from talkinghead.evaluation import metrics
from talkinghead.evaluation.clip_audio import ClipAudio
from talkinghead.evaluation.clip_generation import real_mouths
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import warp_face
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import track_clip
from talkinghead.media.reader import probe, read_audio, read_video
from talkinghead.media.video_input import grid_frames, list_video_files
from talkinghead.types import AVSpec, FloatArray, UInt8Array, VideoFrame


@dataclass(frozen=True)
class MediaClip:
    """A video prepared for scoring, on the AVSpec's frame grid.

    Attributes:
        path: the file.
        faces: canonical faces, uint8 [T, face, face, 3].
        points: landmarks in canonical pixels, float32 [T, P, 2], NaN without a face.
        opening: mouth opening, float32 [T], NaN without a face.
        transforms: from source pixels to the canonical face, float32 [T, 2, 3].
        size: (height, width) of the source.
        audio: None for a silent file.
    """

    path: Path
    faces: UInt8Array
    points: FloatArray
    opening: FloatArray
    transforms: FloatArray
    size: tuple[int, int]
    audio: ClipAudio | None

    def __len__(self) -> int:
        return len(self.faces)

    def mouths(self, spec: AVSpec) -> Tensor:
        """Return the mouths, float [T, 3, mouth, mouth] in [0, 1]."""
        return real_mouths(self.faces, spec)

    def first(self, num_frames: int) -> MediaClip:
        """Return the first frames, with all of the audio."""
        n = num_frames
        return replace(
            self,
            faces=self.faces[:n],
            points=self.points[:n],
            opening=self.opening[:n],
            transforms=self.transforms[:n],
        )


def read_clip(
    path: Path,
    detector: FaceDetector,
    spec: AVSpec,
    *,
    audio_features: Sequence[str] = ("mel",),
    max_frames: int | None = None,
    reference: MediaClip | None = None,
) -> MediaClip:
    """Read a video and track its face.

    Args:
        path: the file.
        detector: face detector.
        spec: canonical face and frame grid.
        audio_features: names of the features to compute; see `AudioFeatures`.
        max_frames: number of frames to read; all if None.
        reference: the real clip. If the sizes are equal, its transforms align the faces, so that
            motion relative to the real video remains visible.

    Raises:
        MediaError: the file cannot be read or is a still image.
        FaceNotFoundError: no frame contains a face.
    """
    info = probe(path)
    if not info.has_video or info.is_image:
        raise MediaError(f"{path}: is not a video; give a file with more than one frame")
    limit = max_frames if reference is None else len(reference)
    track = track_clip(_frames(path, spec, limit), detector, spec, spec.fps)
    size = (info.height, info.width)
    transforms = track.transforms
    if reference is not None and reference.size == size:
        transforms = reference.transforms[: len(transforms)]
    pairs = zip(_frames(path, spec, limit), transforms, strict=True)
    faces = np.stack([warp_face(frame.image, t, spec.face_size) for frame, t in pairs])
    audio = None
    if info.has_audio:
        samples, features = read_audio(path, spec.sample_rate).samples, tuple(audio_features)
        rows = AudioFeatures(spec, features)(torch.from_numpy(samples))
        audio = ClipAudio(samples, rows, features, spec)
    opening = metrics.opening_series(track.points, track.topology)
    points = _canonical(track.points, transforms)
    return MediaClip(path, faces, points, opening, transforms, size, audio)


def find_videos(path: str | Path) -> dict[str, Path]:
    """Return videos by name: their paths below the folder, without suffix.

    Args:
        path: a video, or a folder that is searched recursively.

    Raises:
        UsageError: there is no video.
    """
    root = Path(path)
    if root.is_file():
        return {root.stem: root}
    if not root.is_dir():
        raise UsageError(f"{root} does not exist: give a video, or a folder of videos")
    files = list_video_files(root)
    if not files:
        raise UsageError(f"{root} contains no video; expected files such as clip.mp4")
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in files}


def pair_videos(generated: str | Path, reference: str | Path) -> dict[str, tuple[Path, Path]]:
    """Return pairs of generated and real files, by the names of the real ones.

    Two single files always form a pair. In folders, files are paired by their paths below the
    folder or else by their file names.

    Args:
        generated: a video or a folder.
        reference: a video or a folder.

    Raises:
        UsageError: no files can be paired.
    """
    ours, real = find_videos(generated), find_videos(reference)
    if Path(generated).is_file() and Path(reference).is_file():
        return {name: (next(iter(ours.values())), path) for name, path in real.items()}
    by_name = _unique_names(ours)
    pairs = {}
    for name, path in real.items():
        found = ours.get(name) or by_name.get(Path(name).name)
        if found is not None:
            pairs[name] = (found, path)
    if not pairs:
        raise UsageError(
            f"no file of {generated} has the name of one of {reference}: {_some(ours)} against "
            f"{_some(real)}; give the generated files the names of the real ones"
        )
    return pairs


def _unique_names(files: dict[str, Path]) -> dict[str, Path]:
    names = [Path(key).name for key in files]
    return {Path(key).name: path for key, path in files.items() if names.count(Path(key).name) == 1}


def _some(names: Iterable[str]) -> str:
    first = list(islice(names, 4))
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")


def _frames(path: Path, spec: AVSpec, limit: int | None) -> Iterable[VideoFrame]:
    return islice(grid_frames(read_video(path), spec.fps), limit)


def _canonical(points: FloatArray, transforms: FloatArray) -> FloatArray:
    """Transform landmarks [T, P, 2] from source pixels to canonical pixels."""
    turned = np.einsum("tpx,tyx->tpy", points, transforms[:, :, :2])
    return np.asarray(turned + transforms[:, None, :, 2], dtype=np.float32)
