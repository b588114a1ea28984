"""One source video to one clip file: the part of preparing that a worker process does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from talkinghead.data.clip_file import (
    STORED_FEATURES,
    ClipData,
    encode_face,
    read_metadata,
    write_clip,
)
from talkinghead.data.manifest import write_json
from talkinghead.errors import FaceNotFoundError, MediaError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import (
    as_tensor,
    lip_points,
    mouth_crop,
    mouth_opening,
    transform_scale,
    warp_face,
)
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.head_pose import head_pose
from talkinghead.features.faces.tracker import track_clip
from talkinghead.media.reader import probe, read_audio, read_video
from talkinghead.media.timing import frame_time_s, num_frames_for, seconds_to_samples
from talkinghead.models.checkpoint import EXPERT, resolve_checkpoint
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.sync.offset import (
    Offset,
    SyncRules,
    embed_clip,
    find_offset,
    load_offset_expert,
    shift_audio,
)
from talkinghead.types import AVSpec, FaceTrack, FloatArray, UInt8Array, VideoFrame

CODE_VERSION = "6"
"""Raised when the clips come out differently: clips made by other versions are made again."""

_NUM_FACE_CHECKS = 8
_COMPARABLE_AREA = 0.5


@dataclass(frozen=True)
class ClipRules:
    """What a source must be like to become a clip.

    Attributes:
        min_duration_s: shorter ones are "too short".
        min_face_px: a canonical face that spans fewer source pixels than this is "too small".
        max_lost_fraction: with the face lost in a larger share of the frames it is "face lost".
        max_second_face_fraction: with a second face of comparable size in a larger share of the
            frames looked at it is "several faces".
    """

    min_duration_s: float = 1.0
    min_face_px: float = 80.0
    max_lost_fraction: float = 0.1
    max_second_face_fraction: float = 0.5


@dataclass(frozen=True)
class ClipTask:
    """One source to prepare: `clip_path` is the file to write."""

    source: Path
    clip_id: str
    clip_path: Path


@dataclass(frozen=True)
class ClipResult:
    """What became of a task. `reason` is empty for a good clip.

    `offset` is what a sync expert found in a good clip, before anything was corrected.
    """

    task: ClipTask
    sha256: str
    num_frames: int = 0
    reason: str = ""
    detail: str = ""
    reused: bool = False
    offset: Offset | None = None


class _BadClip(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ClipMaker:
    """Makes clip files. One per process.

    Args:
        detector: finds faces.
        detector_name: what to remember it by.
        spec: the corpus's AVSpec.
        rules: which sources are good enough.
        sync: how well their sound and picture must go together.

    Raises:
        CheckpointError: the sync expert cannot be used.
    """

    def __init__(
        self,
        detector: FaceDetector,
        detector_name: str,
        spec: AVSpec,
        rules: ClipRules,
        sync: SyncRules | None = None,
    ) -> None:
        self.detector = detector
        self.spec = spec
        self.rules = rules
        self.sync = sync or SyncRules()
        self.expert: SyncDiscriminator | None = None
        recipe: list[Any] = [CODE_VERSION, detector_name, spec.to_dict(), vars(rules)]
        if self.sync.checkpoint is not None:
            self.expert = load_offset_expert(self.sync.checkpoint, spec)
            weights = resolve_checkpoint(self.sync.checkpoint, EXPERT).read_bytes()
            checkpoint = hashlib.sha256(weights).hexdigest()
            recipe.append({**vars(self.sync), "checkpoint": checkpoint})
        self._recipe = json.dumps(recipe, sort_keys=True)
        self._features = AudioFeatures(spec, STORED_FEATURES)

    def run(self, task: ClipTask) -> ClipResult:
        """Makes the clip, or finds it made, or says why not. Either is remembered on disk."""
        with task.source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = hashlib.sha256(f"{self._recipe}{sha256}".encode()).hexdigest()
        refusal = task.clip_path.with_suffix(".skipped.json")
        known = _known_result(task, sha256, key, refusal)
        if known is not None:
            return known
        try:
            data, offset = self._make(task.source)
        except _BadClip as bad:
            write_json(refusal, {"key": key, "reason": bad.reason, "detail": str(bad)})
            task.clip_path.unlink(missing_ok=True)
            return ClipResult(task, sha256, reason=bad.reason, detail=str(bad))
        num_frames = len(data.jpegs)
        metadata = {"key": key, "num_frames": str(num_frames), "sha256": sha256}
        if offset is not None:
            metadata["offset"] = json.dumps(vars(offset))
        write_clip(task.clip_path, data, metadata)
        refusal.unlink(missing_ok=True)
        return ClipResult(task, sha256, num_frames, offset=offset)

    def _make(self, source: Path) -> tuple[ClipData, Offset | None]:
        try:
            info = probe(source)
            if not info.has_video or info.is_image:
                raise _BadClip("corrupt", "it is not a video")
            if not info.has_audio:
                raise _BadClip("no audio", "it has no audio stream")
            audio = read_audio(source, self.spec.sample_rate)
            if not np.any(audio.samples):
                raise _BadClip("no audio", "its audio is digital silence")
            limit = num_frames_for(audio.duration_s, self.spec.fps)
            track, num_second = self._track(source, limit)
            self._judge(track, num_second)
            frames = islice(grid_frames(read_video(source), self.spec.fps), limit)
            jpegs, mean_face = self._crop(frames, track)
        except MediaError as error:
            raise _BadClip("corrupt", str(error)) from error
        opening = [mouth_opening(points, track.topology) for points in track.points]
        lips = [
            lip_points(points, track.topology, transform)
            for points, transform in zip(track.points, track.transforms, strict=True)
        ]
        poses = [head_pose(points, track.topology) for points in track.points]
        mel, prosody, samples = self._hear(audio.samples, len(jpegs))
        data = ClipData(
            jpegs,
            mel,
            prosody,
            samples,
            np.array(opening, np.float32),
            np.array(lips, np.float32),
            track.transforms,
            np.ascontiguousarray(mean_face.transpose(2, 0, 1)),
            _to_uint8(mouth_crop(as_tensor(mean_face[None]), self.spec)[0]),
            np.array(poses, np.float32),
        )
        if self.expert is None:
            return data, None
        offset = self._measure(data, self.expert)
        if offset.frames and self.sync.correct:
            data = self._correct(data, audio.samples, offset)
        return data, offset

    def _hear(
        self, samples: FloatArray, num_frames: int
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mel, prosody and the samples themselves, for so many frames."""
        duration_s = frame_time_s(num_frames, self.spec.fps)
        samples = _fit(samples, seconds_to_samples(duration_s, self.spec.sample_rate))
        waveform = torch.from_numpy(samples)
        rows = self._features.split(self._features(waveform))
        return rows["mel"].numpy(), rows["prosody"].numpy(), samples

    def _measure(self, data: ClipData, expert: SyncDiscriminator) -> Offset:
        """How far the sound is from the picture, if that is near enough and sure enough."""
        num_frames, rules = len(data.jpegs), self.sync
        if num_frames < 2 * expert.num_frames:
            raise _BadClip("too short", f"{num_frames} frames are too few to measure its offset")
        features = AudioFeatures(self.spec, expert.audio_encoder.input_features)(
            torch.from_numpy(data.audio)
        )

        def read_faces(start: int, stop: int) -> UInt8Array:
            return np.stack([_decode(jpeg) for jpeg in data.jpegs[start:stop]])

        heard, seen = embed_clip(
            expert, read_faces, num_frames, data.mean_mouth, features, self.spec
        )
        offset = find_offset(heard, seen, rules.max_offset_frames)
        if offset.confidence < rules.min_confidence:
            raise _BadClip(
                "low confidence",
                f"sound and mouth agree with a confidence of {offset.confidence:.2f} at best (with "
                f"an offset of {offset.frames:+d} frames), {rules.min_confidence} is needed",
            )
        if abs(offset.frames) > rules.max_offset_frames:
            raise _BadClip(
                "out of sync",
                f"its offset is {offset.frames:+d} frames (positive: the sound comes late), "
                f"at most {rules.max_offset_frames} are allowed",
            )
        return offset

    def _correct(self, data: ClipData, samples: FloatArray, offset: Offset) -> ClipData:
        """The clip with its sound where it belongs, without the frames that then have none."""
        kept, samples = shift_audio(samples, len(data.jpegs), offset.frames, self.spec)
        assert data.head_pose is not None
        num_frames = kept.stop - kept.start
        self._require_duration(num_frames)
        mel, prosody, samples = self._hear(samples, num_frames)
        return replace(
            data,
            jpegs=data.jpegs[kept],
            mel=mel,
            prosody=prosody,
            audio=samples,
            mouth_opening=data.mouth_opening[kept],
            lips=data.lips[kept],
            transforms=data.transforms[kept],
            head_pose=data.head_pose[kept],
        )

    def _track(self, source: Path, limit: int) -> tuple[FaceTrack, float]:
        """The largest face's track, and the share of frames with a second one as large."""
        frames = islice(grid_frames(read_video(source), self.spec.fps), limit)
        tap = _SecondFaceTap(self.detector, max(1, limit // _NUM_FACE_CHECKS))
        try:
            track = track_clip(tap(frames), self.detector, self.spec, self.spec.fps)
        except FaceNotFoundError as error:
            raise _BadClip("no face", str(error)) from error
        return track, tap.share

    def _judge(self, track: FaceTrack, second_face_share: float) -> None:
        rules = self.rules
        self._require_duration(len(track.found))
        lost = 1.0 - float(track.found.mean())
        if lost > rules.max_lost_fraction:
            raise _BadClip("face lost", f"the face is lost in {lost:.0%} of its frames")
        if second_face_share > rules.max_second_face_fraction:
            raise _BadClip(
                "several faces",
                f"a second face as large is in {second_face_share:.0%} of the frames looked at",
            )
        size = self.spec.face_size / float(
            np.median([transform_scale(t) for t in track.transforms])
        )
        if size < rules.min_face_px:
            raise _BadClip(
                "too small", f"its face spans {size:.0f} pixels, {rules.min_face_px:.0f} are needed"
            )

    def _require_duration(self, num_frames: int) -> None:
        duration_s, needed_s = float(num_frames / self.spec.fps), self.rules.min_duration_s
        if duration_s < needed_s:
            raise _BadClip("too short", f"it has {duration_s:.2f} s, {needed_s} s are needed")

    def _crop(
        self, frames: Iterable[VideoFrame], track: FaceTrack
    ) -> tuple[list[bytes], UInt8Array]:
        """The aligned faces as JPEGs, and the mean of those where the face was found."""
        jpegs = []
        total = np.zeros((self.spec.face_size, self.spec.face_size, 3))
        for frame, transform, found in zip(frames, track.transforms, track.found, strict=True):
            face = warp_face(frame.image, transform, self.spec.face_size)
            jpegs.append(encode_face(face))
            if found:
                total += face
        return jpegs, np.rint(total / track.found.sum()).astype(np.uint8)


class _SecondFaceTap:
    """Passes frames on, looking at every `step`-th for a second face of comparable size."""

    def __init__(self, detector: FaceDetector, step: int) -> None:
        self._detector = detector
        self._step = step
        self._num_looked = 0
        self._num_second = 0

    def __call__(self, frames: Iterable[VideoFrame]) -> Iterator[UInt8Array]:
        for number, frame in enumerate(frames):
            if number % self._step == 0:
                areas = [
                    face.box.width * face.box.height for face in self._detector.detect(frame.image)
                ]
                self._num_looked += 1
                self._num_second += len(areas) > 1 and sorted(areas)[-2] > _COMPARABLE_AREA * max(
                    areas
                )
            yield frame.image

    @property
    def share(self) -> float:
        return self._num_second / max(1, self._num_looked)


def grid_frames(frames: Iterable[VideoFrame], fps: Fraction) -> Iterator[VideoFrame]:
    """Video on a constant grid: for each grid frame the picture that is on screen at its middle.

    A video that already has this rate passes unchanged, however its timestamps are rounded.

    Args:
        frames: pictures in order of time, at any and even a varying rate.
        fps: the grid's rate.

    Yields:
        Frame `k` at time `k / fps`. The last picture is taken to last as long as the one before it.
    """
    number, previous, length = 0, None, 1 / fps
    for frame in frames:
        if previous is not None:
            length = frame.time_s - previous.time_s
            while (number + Fraction(1, 2)) / fps < frame.time_s:
                yield VideoFrame(previous.image, number / fps)
                number += 1
        previous = frame
    while previous is not None and (number + Fraction(1, 2)) / fps < previous.time_s + length:
        yield VideoFrame(previous.image, number / fps)
        number += 1


def _known_result(task: ClipTask, sha256: str, key: str, refusal: Path) -> ClipResult | None:
    """The outcome of an earlier run with the same source, spec, detector, rules and code."""
    metadata = read_metadata(task.clip_path)
    if metadata is not None and metadata.get("key") == key:
        offset = Offset(**json.loads(metadata["offset"])) if "offset" in metadata else None
        return ClipResult(task, sha256, int(metadata["num_frames"]), reused=True, offset=offset)
    try:
        values = json.loads(refusal.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if values.get("key") != key:
        return None
    return ClipResult(task, sha256, reason=values["reason"], detail=values["detail"], reused=True)


def _fit(samples: FloatArray, length: int) -> FloatArray:
    """Cut, or padded with silence, to a length."""
    return np.ascontiguousarray(
        np.pad(samples[:length], (0, max(0, length - len(samples)))), dtype=np.float32
    )


def _decode(jpeg: bytes) -> UInt8Array:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB))


def _to_uint8(image: torch.Tensor) -> UInt8Array:
    return (image * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()
