"""Any system's video files as aligned faces, landmarks and sound; and which file belongs to which.

Shape suffixes: T video frames, P landmarks, C feature rows, M mel frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkinghead.data.preparation.clip_maker import grid_frames
from talkinghead.data.preparation.corpus import VIDEO_SUFFIXES
from talkinghead.errors import MediaError, UsageError
from talkinghead.evaluation import metrics
from talkinghead.evaluation.clip_generation import real_mouths
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import warp_face
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import track_clip
from talkinghead.media.reader import probe, read_audio, read_video
from talkinghead.types import AVSpec, FloatArray, UInt8Array, VideoFrame


@dataclass(frozen=True)
class MediaClip:
    """A video as it is judged, on the AVSpec's frame grid.

    `faces` uint8 [T, face, face, 3], canonical; `points` float32 [T, P, 2] in canonical pixels, NaN
    where no face was found; `opening` float32 [T] likewise; `transforms` float32 [T, 2, 3] from the
    source's pixels; `size` the source's (height, width). `samples` float32 [num_samples] and
    `features` float [C, M] are the sound's, None for a silent file.
    """

    path: Path
    faces: UInt8Array
    points: FloatArray
    opening: FloatArray
    transforms: FloatArray
    size: tuple[int, int]
    samples: FloatArray | None
    features: Tensor | None

    def __len__(self) -> int:
        """Number of video frames."""
        return len(self.faces)

    def mouths(self, spec: AVSpec) -> Tensor:
        """Float [T, 3, mouth, mouth] in [0, 1]."""
        return real_mouths(self.faces, spec)

    def first(self, num_frames: int) -> MediaClip:
        """The clip's beginning, with all of its sound."""
        n = num_frames
        return MediaClip(
            self.path,
            self.faces[:n],
            self.points[:n],
            self.opening[:n],
            self.transforms[:n],
            self.size,
            self.samples,
            self.features,
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
    """Reads a video and follows its face.

    Args:
        path: the file.
        detector: finds the face.
        spec: the canonical face and the frame grid.
        audio_features: names of the features to compute; see `AudioFeatures`.
        max_frames: at most so many frames from the start; all if None.
        reference: the real clip. Where the sizes agree the faces are aligned by its transforms, so
            that what has moved in the picture shows; else by the file's own.

    Raises:
        MediaError: the file cannot be read or is a still.
        FaceNotFoundError: no frame shows a face.
    """
    info = probe(path)
    if not info.has_video or info.is_image:
        raise MediaError(f"{path}: is no video; give one with moving pictures")
    limit = max_frames if reference is None else len(reference)
    track = track_clip(_frames(path, spec, limit), detector, spec, spec.fps)
    size = (info.height, info.width)
    transforms = track.transforms
    if reference is not None and reference.size == size:
        transforms = reference.transforms[: len(transforms)]
    pairs = zip(_frames(path, spec, limit), transforms, strict=True)
    faces = np.stack([warp_face(frame.image, t, spec.face_size) for frame, t in pairs])
    samples = read_audio(path, spec.sample_rate).samples if info.has_audio else None
    features = None
    if samples is not None:
        features = AudioFeatures(spec, audio_features)(torch.from_numpy(samples))
    return MediaClip(
        path,
        faces,
        _canonical(track.points, transforms),
        metrics.opening_series(track.points, track.topology),
        transforms,
        size,
        samples,
        features,
    )


def find_videos(path: str | Path) -> dict[str, Path]:
    """Videos by the name that pairs them: the path below the folder, without its suffix.

    Args:
        path: a video, or a folder that is searched to its depth.

    Raises:
        UsageError: nothing is there.
    """
    root = Path(path)
    if root.is_file():
        return {root.stem: root}
    if not root.is_dir():
        raise UsageError(f"{root} does not exist: give a video, or a folder of videos")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    if not files:
        raise UsageError(f"{root} holds no video; expected files such as clip.mp4")
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in files}


def pair_videos(generated: str | Path, reference: str | Path) -> dict[str, tuple[Path, Path]]:
    """Generated and real files that belong together, by the real ones' names.

    Two single files are a pair whatever their names. In folders a file's path below the folder
    counts or, where that finds none, its name alone.

    Args:
        generated: a video or a folder.
        reference: likewise.

    Raises:
        UsageError: no file has a partner.
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
            f"{_some(real)}; name the generated files as the real ones"
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
    """Landmarks [T, P, 2] from the source's pixels to the canonical face's."""
    turned = np.einsum("tpx,tyx->tpy", points, transforms[:, :, :2])
    return np.asarray(turned + transforms[:, None, :, 2], dtype=np.float32)
