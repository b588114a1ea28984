"""Reading and pairing of the videos that `score` compares.

Shape suffixes: T video frames, P landmarks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from talkinghead.errors import MediaError, UsageError
from talkinghead.evaluation import metrics
from talkinghead.evaluation.clip_audio import ClipAudio
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import warp_face
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import track_clip
from talkinghead.media.reader import grid_frames, list_video_files, probe, read_audio, read_video
from talkinghead.types import AVSpec, FloatArray, UInt8Array, VideoFrame


@dataclass(frozen=True)
class MediaClip:
    """A video prepared for scoring, on the AVSpec's frame grid.

    Attributes:
        path: the file.
        faces: canonical faces, uint8 [T, face, face, 3].
        points: landmarks in canonical pixels, float32 [T, P, 2], NaN without a face.
        opening: mouth opening, float32 [T], NaN without a face.
        transforms: transforms from source pixels to the canonical face, float32 [T, 2, 3].
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

    def first(self, num_frames: int) -> MediaClip:
        """Return the first `num_frames` frames, with all of the audio."""
        names = ("faces", "points", "opening", "transforms")
        return replace(self, **{name: getattr(self, name)[:num_frames] for name in names})


def read_clip(
    path: Path,
    detector: FaceDetector,
    spec: AVSpec,
    *,
    audio_features: Sequence[str] = ("mel",),
    max_frames: int | None = None,
    reference: MediaClip | None = None,
) -> MediaClip:
    """Read a video and track the face in it.

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

    def frames() -> Iterable[VideoFrame]:
        return islice(grid_frames(read_video(path), spec.fps), limit)

    track = track_clip(frames(), detector, spec, spec.fps)
    size = (info.height, info.width)
    transforms = track.transforms
    if reference is not None and reference.size == size:
        transforms = reference.transforms[: len(transforms)]
    pairs = zip(frames(), transforms, strict=True)
    faces = np.stack([warp_face(frame.image, t, spec.face_size) for frame, t in pairs])
    audio = None
    if info.has_audio:
        samples, features = read_audio(path, spec.sample_rate).samples, tuple(audio_features)
        rows = AudioFeatures(spec, features)(torch.from_numpy(samples))
        audio = ClipAudio(samples, rows, features, spec)
    opening = metrics.opening_series(track.points, track.topology)
    turned = np.einsum("tpx,tyx->tpy", track.points, transforms[:, :, :2])
    points = (turned + transforms[:, None, :, 2]).astype(np.float32)
    return MediaClip(path, faces, points, opening, transforms, size, audio)


def pair_videos(generated: str | Path, reference: str | Path) -> dict[str, tuple[Path, Path]]:
    """Return pairs of generated and real files, by the names of the real files.

    Two single files always form a pair. In folders, files are paired by their paths below the
    folder or else by their file names.

    Raises:
        UsageError: a path is missing or contains no video, or no files can be paired.
    """
    ours, real = _find_videos(Path(generated)), _find_videos(Path(reference))
    if Path(generated).is_file() and Path(reference).is_file():
        return {name: (next(iter(ours.values())), path) for name, path in real.items()}
    count = Counter(Path(key).name for key in ours)
    unique = {Path(key).name: path for key, path in ours.items() if count[Path(key).name] == 1}
    found = {name: ours.get(name) or unique.get(Path(name).name) for name in real}
    pairs = {name: (path, real[name]) for name, path in found.items() if path is not None}
    if not pairs:
        raise UsageError(
            f"no file of {generated} has the name of one of {reference}: {_some(ours)} against "
            f"{_some(real)}; give the generated files the names of the real ones"
        )
    return pairs


def _find_videos(root: Path) -> dict[str, Path]:
    """Return a video, or the videos in a folder by relative path without suffix."""
    if root.is_file():
        return {root.stem: root}
    if not root.is_dir():
        raise UsageError(f"{root} does not exist: give a video, or a folder of videos")
    files = list_video_files(root)
    if not files:
        raise UsageError(f"{root} contains no video; expected files such as clip.mp4")
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in files}


def _some(names: Iterable[str]) -> str:
    first = list(islice(names, 4))
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")
