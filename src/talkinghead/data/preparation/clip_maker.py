"""Preparation of a single video: writes a clip file, or records why the video is skipped."""

from __future__ import annotations

import errno
import hashlib
import json
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talkinghead.data.clip_file import (
    STORED_FEATURES,
    ClipData,
    decode_face,
    encode_face,
    mean_images,
    read_metadata,
    write_clip,
)
from talkinghead.data.manifest import write_json
from talkinghead.errors import FaceNotFoundError, MediaError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import (
    lip_points,
    mouth_opening,
    transform_scale,
    warp_face,
)
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.head_pose import head_pose
from talkinghead.features.faces.tracker import track_clip
from talkinghead.media.reader import grid_frames, probe, read_audio, read_video
from talkinghead.media.timing import frame_time_s, num_frames_for, seconds_to_samples
from talkinghead.models.checkpoint import EXPERT, resolve_checkpoint
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.sync.embeddings import embed_clip, load_sync_expert
from talkinghead.sync.lip_offset import LipOffsetRules
from talkinghead.sync.offset import Offset, SyncRules, find_offset, shift_audio
from talkinghead.types import AVSpec, FaceTrack, FloatArray, UInt8Array, VideoFrame
from talkinghead.value_rules import NonNegativeFloat, UnitFloat

CODE_VERSION = "6"
"""Version of the clips. Clips of another version are prepared again."""

_NUM_SECOND_FACE_CHECKS = 8
_COMPARABLE_AREA = 0.5


@dataclass(frozen=True)
class ClipRules:
    """Requirements that a video must meet.

    Attributes:
        min_duration_s: Shorter videos are skipped as "too short".
        min_face_px: Videos whose canonical face spans fewer source pixels are skipped as "too
            small".
        max_lost_fraction: Videos without a face in a larger fraction of the frames are skipped as
            "face lost".
        max_second_face_fraction: Videos with a second face of comparable size in a larger fraction
            of the checked frames are skipped as "several faces".
    """

    min_duration_s: NonNegativeFloat = 1.0
    min_face_px: NonNegativeFloat = 80.0
    max_lost_fraction: UnitFloat = 0.1
    max_second_face_fraction: UnitFloat = 0.5


@dataclass(frozen=True)
class ClipTask:
    """A source video and the clip file to write.

    `name` is the path of the source relative to the input folder.
    """

    source: Path
    clip_id: str
    clip_path: Path
    name: str = ""
    speaker: str = ""

    @property
    def skip_path(self) -> Path:
        """The file with the reason for which an earlier run skipped the video."""
        return self.clip_path.with_suffix(".skipped.json")


@dataclass(frozen=True)
class ClipResult:
    """Result of a task.

    Attributes:
        reason: Category of the reason for which the source was skipped; empty for a usable clip.
        detail: Message for a skipped source.
        reused: Whether the result is that of an earlier run.
        offset: Audio-video offset of a usable clip before the correction, if it was measured.
    """

    task: ClipTask
    sha256: str
    num_frames: int = 0
    reason: str = ""
    detail: str = ""
    reused: bool = False
    offset: Offset | None = None


def audio_tensors(samples: FloatArray, num_frames: int, features: AudioFeatures) -> dict[str, Any]:
    """Return `mel`, `prosody` and `audio`, cut or padded with silence to the video's length."""
    spec = features.spec
    length = seconds_to_samples(frame_time_s(num_frames, spec.fps), spec.sample_rate)
    padded = np.pad(samples[:length], (0, max(0, length - len(samples))))
    audio = np.ascontiguousarray(padded, dtype=np.float32)
    rows = features.split(features(torch.from_numpy(audio)))
    return {"audio": audio} | {name: rows[name].numpy() for name in STORED_FEATURES}


def shift_clip(
    data: ClipData, samples: FloatArray, offset: float, features: AudioFeatures
) -> ClipData:
    """Return a clip without the offset of its audio, and without frames left without audio.

    The audio, float32 [num_samples], is `offset` frames late.
    """
    kept, samples = shift_audio(samples, len(data.jpegs), offset, features.spec)
    of_frames = ("jpegs", "mouth_opening", "lips", "transforms", "head_pose")
    values: dict[str, Any] = {name: getattr(data, name)[kept] for name in of_frames}
    num_frames = kept.stop - kept.start
    return replace(data, **values, **audio_tensors(samples, num_frames, features))


class _SkipError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ClipMaker:
    """A processor that turns videos into clips; clips made with other settings are replaced.

    Raises:
        CheckpointError: The sync expert cannot be used.
    """

    def __init__(
        self,
        detector: FaceDetector,
        detector_name: str,
        spec: AVSpec,
        rules: ClipRules,
        sync: SyncRules | None = None,
        lip_offset: LipOffsetRules | None = None,
    ) -> None:
        self.detector = detector
        self.spec = spec
        self.rules = rules
        self.sync = sync or SyncRules()
        self.expert: SyncDiscriminator | None = None
        recipe: list[Any] = [CODE_VERSION, detector_name, spec.to_dict(), vars(rules)]
        if self.sync.checkpoint is not None:
            self.expert = load_sync_expert(self.sync.checkpoint, spec)
            weights = resolve_checkpoint(self.sync.checkpoint, EXPERT).read_bytes()
            checkpoint = hashlib.sha256(weights).hexdigest()
            recipe.append({**vars(self.sync), "checkpoint": checkpoint})
        if lip_offset is not None:
            recipe.append({"lip_offset": vars(lip_offset)})
        self._recipe = json.dumps(recipe, sort_keys=True)
        self._features = AudioFeatures(spec, STORED_FEATURES)

    def run(self, task: ClipTask) -> ClipResult:
        """Prepare a clip, or return the stored result of an earlier run with the same settings."""
        try:
            sha256 = file_digest(task.source)
        except OSError as error:
            return _unreadable(task, "", error)
        key = hashlib.sha256(f"{self._recipe}{sha256}".encode()).hexdigest()
        if earlier := _earlier_result(task, sha256, key):
            return earlier
        try:
            data, offset = self._make(task.source)
        except _SkipError as skip:
            write_json(task.skip_path, {"key": key, "reason": skip.reason, "detail": str(skip)})
            task.clip_path.unlink(missing_ok=True)
            return ClipResult(task, sha256, reason=skip.reason, detail=str(skip))
        except OSError as error:  # The file has been removed or changed meanwhile.
            return _unreadable(task, sha256, error)
        num_frames = len(data.jpegs)
        metadata = {"key": key, "num_frames": str(num_frames), "sha256": sha256}
        if offset is not None:
            metadata["offset"] = json.dumps(vars(offset))
        write_clip(task.clip_path, data, metadata)
        task.skip_path.unlink(missing_ok=True)
        return ClipResult(task, sha256, num_frames, offset=offset)

    def _make(self, source: Path) -> tuple[ClipData, Offset | None]:
        try:
            samples, limit = self._read_audio(source)
            track = self._track(source, limit)
            frames = islice(grid_frames(read_video(source), self.spec.fps), limit)
            jpegs, mean_face = self._crop(frames, track)
        except MediaError as error:
            raise _SkipError("corrupt", str(error)) from error
        points, topology, transforms = track.points, track.topology, track.transforms
        lips = [lip_points(p, topology, t) for p, t in zip(points, transforms, strict=True)]
        data = ClipData(
            jpegs=jpegs,
            mouth_opening=np.array([mouth_opening(p, topology) for p in points], np.float32),
            lips=np.array(lips, np.float32),
            transforms=transforms,
            head_pose=np.array([head_pose(p, topology) for p in points], np.float32),
            **audio_tensors(samples, len(jpegs), self._features),
            **mean_images(mean_face, self.spec),
        )
        if self.expert is None:
            return data, None
        offset = self._measure_offset(data, self.expert)
        if offset.frames and self.sync.correct:
            data = shift_clip(data, samples, offset.frames, self._features)
            self._require_duration(len(data.jpegs))
        return data, offset

    def _read_audio(self, source: Path) -> tuple[FloatArray, int]:
        """Return the audio samples and the number of frames that the audio covers."""
        info = probe(source)
        if not info.has_video or info.is_image:
            raise _SkipError("corrupt", "it is not a video")
        if not info.has_audio:
            raise _SkipError("no audio", "it has no audio stream")
        audio = read_audio(source, self.spec.sample_rate)
        if not np.any(audio.samples):
            raise _SkipError("no audio", "its audio is digital silence")
        return audio.samples, num_frames_for(audio.duration_s, self.spec.fps)

    def _measure_offset(self, data: ClipData, expert: SyncDiscriminator) -> Offset:
        """Return the audio-video offset; skip the clip if the offset violates the rules."""
        num_frames, rules = len(data.jpegs), self.sync
        if num_frames < 2 * expert.num_frames:
            raise _SkipError("too short", f"{num_frames} frames are too few to measure its offset")
        extract = AudioFeatures(self.spec, expert.audio_encoder.input_features)
        features = extract(torch.from_numpy(data.audio))

        def read_faces(start: int, stop: int) -> UInt8Array:
            jpegs = (np.frombuffer(jpeg, np.uint8) for jpeg in data.jpegs[start:stop])
            return np.stack([decode_face(jpeg) for jpeg in jpegs])

        embedded = embed_clip(expert, read_faces, num_frames, data.mean_mouth, features, self.spec)
        offset = find_offset(*embedded, rules.max_offset_frames)
        if offset.confidence < rules.min_confidence:
            raise _SkipError(
                "low confidence",
                f"audio and mouth agree with a confidence of {offset.confidence:.2f} at best (with "
                f"an offset of {offset.frames:+g} frames), {rules.min_confidence} is needed",
            )
        if abs(offset.frames) > rules.max_offset_frames:
            raise _SkipError(
                "out of sync",
                f"its offset is {offset.frames:+g} frames (positive: the audio is late), "
                f"at most {rules.max_offset_frames} are allowed",
            )
        return offset

    def _track(self, source: Path, limit: int) -> FaceTrack:
        """Return the track of the largest face; skip the clip if the track violates the rules."""
        frames = islice(grid_frames(read_video(source), self.spec.fps), limit)
        step, second_face = max(1, limit // _NUM_SECOND_FACE_CHECKS), list[bool]()
        images = _check_second_face(frames, self.detector, step, second_face)
        try:
            track = track_clip(images, self.detector, self.spec, self.spec.fps)
        except FaceNotFoundError as error:
            raise _SkipError("no face", str(error)) from error
        self._require_duration(len(track.found))
        rules, lost = self.rules, 1.0 - float(track.found.mean())
        if lost > rules.max_lost_fraction:
            raise _SkipError("face lost", f"the face is lost in {lost:.0%} of its frames")
        fraction = float(np.mean(second_face))
        if fraction > rules.max_second_face_fraction:
            raise _SkipError(
                "several faces",
                f"{fraction:.0%} of the checked frames show a second face of comparable size",
            )
        size = self.spec.face_size / np.median([transform_scale(t) for t in track.transforms])
        if size < rules.min_face_px:
            raise _SkipError(
                "too small", f"its face spans {size:.0f} pixels, {rules.min_face_px:.0f} are needed"
            )
        return track

    def _require_duration(self, num_frames: int) -> None:
        duration_s, needed_s = float(num_frames / self.spec.fps), self.rules.min_duration_s
        if duration_s < needed_s:
            raise _SkipError("too short", f"it has {duration_s:.2f} s, {needed_s} s are needed")

    def _crop(
        self, frames: Iterable[VideoFrame], track: FaceTrack
    ) -> tuple[list[bytes], UInt8Array]:
        """Return the aligned faces as JPEGs, and the mean of the frames with a detected face."""
        jpegs = []
        total = np.zeros((self.spec.face_size, self.spec.face_size, 3))
        for frame, transform, found in zip(frames, track.transforms, track.found, strict=True):
            face = warp_face(frame.image, transform, self.spec.face_size)
            jpegs.append(encode_face(face))
            if found:
                total += face
        return jpegs, np.rint(total / track.found.sum()).astype(np.uint8)


def file_digest(path: Path) -> str:
    """Return the hash of a regular file; opening a pipe would wait for a writer."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(task: ClipTask, sha256: str, error: OSError) -> ClipResult:
    """Return the result for a file that cannot be read now; the next run tries again."""
    detail = error.strerror or str(error)
    return ClipResult(task, sha256, reason="unreadable", detail=detail)


def _check_second_face(
    frames: Iterable[VideoFrame], detector: FaceDetector, step: int, found: list[bool]
) -> Iterator[UInt8Array]:
    """Yield the images of the frames, and look for a second face in every `step`-th frame.

    For each of these frames, a bool is appended to `found`: whether the second face has a size
    comparable to the first.
    """
    for number, frame in enumerate(frames):
        if number % step == 0:
            boxes = [face.box for face in detector.detect(frame.image)]
            areas = sorted(box.width * box.height for box in boxes)
            found.append(len(areas) > 1 and areas[-2] > _COMPARABLE_AREA * areas[-1])
        yield frame.image


def _earlier_result(task: ClipTask, sha256: str, key: str) -> ClipResult | None:
    """Return the stored result with this key, or None."""
    metadata = read_metadata(task.clip_path)
    if metadata and metadata.get("key") == key:
        offset = Offset(**json.loads(metadata["offset"])) if "offset" in metadata else None
        return ClipResult(task, sha256, int(metadata["num_frames"]), reused=True, offset=offset)
    try:
        values = json.loads(task.skip_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if values.pop("key", None) != key:
        return None
    return ClipResult(task, sha256, **values, reused=True)
