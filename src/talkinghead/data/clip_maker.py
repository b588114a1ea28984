"""One source video to one clip file: the part of preparing that a worker process does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from talkinghead.data.manifest import write_json
from talkinghead.data.storage import ClipData, encode_face, read_metadata, write_clip
from talkinghead.errors import FaceNotFoundError, MediaError
from talkinghead.features.audio import LogMel, Prosody
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import track_clip
from talkinghead.features.geometry import (
    as_tensor,
    lip_points,
    mouth_crop,
    mouth_opening,
    transform_scale,
    warp_face,
)
from talkinghead.media.reader import probe, read_audio, read_video
from talkinghead.media.timing import frame_time_s, num_frames_for, seconds_to_samples
from talkinghead.types import AVSpec, FaceTrack, FloatArray, UInt8Array, VideoFrame

CODE_VERSION = "3"
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
    """What became of a task. `reason` is empty for a good clip."""

    task: ClipTask
    sha256: str
    num_frames: int = 0
    reason: str = ""
    detail: str = ""
    reused: bool = False


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
    """

    def __init__(
        self, detector: FaceDetector, detector_name: str, spec: AVSpec, rules: ClipRules
    ) -> None:
        self.detector = detector
        self.spec = spec
        self.rules = rules
        self._recipe = json.dumps(
            [CODE_VERSION, detector_name, spec.to_dict(), vars(rules)], sort_keys=True
        )
        self._mel = LogMel(spec)
        self._prosody = Prosody(spec)

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
            data = self._make(task.source)
        except _BadClip as bad:
            write_json(refusal, {"key": key, "reason": bad.reason, "detail": str(bad)})
            task.clip_path.unlink(missing_ok=True)
            return ClipResult(task, sha256, reason=bad.reason, detail=str(bad))
        num_frames = len(data.jpegs)
        write_clip(
            task.clip_path, data, {"key": key, "num_frames": str(num_frames), "sha256": sha256}
        )
        refusal.unlink(missing_ok=True)
        return ClipResult(task, sha256, num_frames)

    def _make(self, source: Path) -> ClipData:
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
        samples = _fit(
            audio.samples,
            seconds_to_samples(frame_time_s(len(jpegs), self.spec.fps), self.spec.sample_rate),
        )
        waveform = torch.from_numpy(samples)
        opening = [mouth_opening(points, track.topology) for points in track.points]
        lips = [
            lip_points(points, track.topology, transform)
            for points, transform in zip(track.points, track.transforms, strict=True)
        ]
        return ClipData(
            jpegs,
            self._mel(waveform).numpy(),
            self._prosody(waveform).numpy(),
            samples,
            np.array(opening, np.float32),
            np.array(lips, np.float32),
            track.transforms,
            np.ascontiguousarray(mean_face.transpose(2, 0, 1)),
            _to_uint8(mouth_crop(as_tensor(mean_face[None]), self.spec)[0]),
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
        rules, num_frames = self.rules, len(track.found)
        duration_s = float(num_frames / self.spec.fps)
        if duration_s < rules.min_duration_s:
            raise _BadClip(
                "too short", f"it has {duration_s:.2f} s, {rules.min_duration_s} s are needed"
            )
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
        return ClipResult(task, sha256, int(metadata["num_frames"]), reused=True)
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


def _to_uint8(image: torch.Tensor) -> UInt8Array:
    return (image * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()
