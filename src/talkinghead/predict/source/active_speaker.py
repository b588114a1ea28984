"""Who speaks in a video: in each shot the face whose mouth goes best with the video's own sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import as_tensor, invert, mouth_crop, warp_face
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import MultiTracker, centre, largest
from talkinghead.media.reader import stream_audio
from talkinghead.media.timing import round_half_up, seconds_to_samples
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.predict.source.playback import stored_frames
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.predict.source.tracks import MAX_FACES, aligned, layered, many_tracks
from talkinghead.sync.offset import embed_clip, find_offset
from talkinghead.types import AVSpec, Face, FloatArray, UInt8Array

# So much of a shot is looked at; who begins to speak later in it is not noticed.
_LISTEN_S = 10
_MAX_OFFSET = 5
_MIN_WINDOWS = 12


@dataclass
class _Candidate:
    """A face at the beginning of a shot: where it was when, and its mouth at the spec's frames.

    `mouths` are uint8 [side, side, 3], cut out of the canonical face; while the face is not seen,
    what was seen before.
    """

    times_s: list[Fraction] = field(default_factory=list)
    places: list[FloatArray] = field(default_factory=list)
    mouths: list[UInt8Array] = field(default_factory=list)


@dataclass
class _Shot:
    """A shot, and the faces in its slots; `speaker` is one of them, None where nobody can be told.

    `is_open` until that is decided.
    """

    start_s: Fraction
    candidates: dict[int, _Candidate] = field(default_factory=dict)
    speaker: _Candidate | None = None
    is_open: bool = True


class Speakers:
    """Chooses the face that speaks, wherever a video's tracker follows nobody (see `Choice`).

    For it the video is read once more, shot by shot, ahead of the pictures that are shown.

    Args:
        path: a video with sound.
        fps: its nominal rate.
        detector: finds and follows faces.
        expert: tells mouths that go with a sound.
        spec: the expert's.
    """

    def __init__(
        self,
        path: Path,
        fps: Fraction,
        detector: FaceDetector,
        expert: SyncDiscriminator,
        spec: AVSpec,
    ) -> None:
        self._expert, self._spec = expert, spec
        self._features = AudioFeatures(spec, expert.audio_encoder.input_features)
        self._sound = _Sound(path, spec.sample_rate)
        self._shots = [_Shot(Fraction(0))]
        self._watching = self._watch(path, fps, detector)
        self._known_s: Fraction | None = Fraction(-1)

    def __call__(self, faces: list[Face], time_s: Fraction) -> Face | None:
        """The face nearest to where the speaker was at a moment of the file."""
        while self._known_s is not None and self._known_s < time_s:
            self._known_s = next(self._watching, None)
        shot = next(shot for shot in reversed(self._shots) if shot.start_s <= time_s)
        if shot.speaker is None or not faces:
            return largest(faces, time_s)
        gaps_s = [abs(then_s - time_s) for then_s in shot.speaker.times_s]
        place = shot.speaker.places[gaps_s.index(min(gaps_s))]
        return min(faces, key=lambda face: float(np.linalg.norm(centre(face.box) - place)))

    def _watch(self, path: Path, fps: Fraction, detector: FaceDetector) -> Iterator[Fraction]:
        """Goes through the file; gives each moment whose speaker is known."""
        tracker = MultiTracker(detector, MAX_FACES)
        slots = many_tracks(stored_frames(path, fps), tracker, MAX_FACES)
        pictures = layered([aligned(slot, self._spec, fps) for slot in slots])
        for time_s, group in groupby(pictures, key=lambda frame: frame.time_s):
            frames = list(group)
            if frames[0].opens_shot:
                self._decide(self._shots[-1])
                self._shots.append(_Shot(time_s))
            shot = self._shots[-1]
            if time_s - shot.start_s >= _LISTEN_S:
                self._decide(shot)
            if shot.is_open:
                self._note(shot, frames)
            else:
                yield time_s
        self._decide(self._shots[-1])

    def _note(self, shot: _Shot, frames: list[SourceFrame]) -> None:
        """Adds a picture's faces to the shot's candidates."""
        x0, y0, x1, y1 = (int(v) for v in self._spec.mouth_box)
        middle = np.full(2, self._spec.face_size / 2, np.float32)
        passed_s = frames[0].time_s + frames[0].duration_s - shot.start_s
        for frame in frames:
            if frame.transform is None:
                continue
            inverse = invert(frame.transform)
            candidate = shot.candidates.setdefault(frame.slot, _Candidate())
            candidate.times_s.append(frame.time_s)
            candidate.places.append(inverse[:, :2] @ middle + inverse[:, 2])
            face = warp_face(frame.image, frame.transform, self._spec.face_size)
            mouth = face[y0:y1, x0:x1].copy()
            # Whatever the video's rate is, so many of the spec's frames have passed.
            missing = round_half_up(passed_s * self._spec.fps) - len(candidate.mouths)
            candidate.mouths += [(candidate.mouths or [mouth])[-1]] * (missing - 1)
            candidate.mouths += [mouth] * (missing > 0)

    @torch.inference_mode()
    def _decide(self, shot: _Shot) -> None:
        """The speaker of a shot is the candidate of which the expert is the surest."""
        if not shot.is_open:
            return
        shot.is_open = False
        longest = max((len(c.mouths) for c in shot.candidates.values()), default=0)
        if longest < self._expert.num_frames + _MIN_WINDOWS:
            return
        first, last = (
            seconds_to_samples(time_s, self._spec.sample_rate)
            for time_s in (shot.start_s, shot.start_s + longest / self._spec.fps)
        )
        features_CM = self._features(torch.from_numpy(self._sound.read(first, last)))
        shot.speaker = max(shot.candidates.values(), key=lambda c: self._score(c, features_CM))
        for candidate in shot.candidates.values():
            candidate.mouths.clear()

    def _score(self, candidate: _Candidate, features_CM: torch.Tensor) -> float:
        """LSE-C of a mouth and the sound; -1 where too little of it was seen."""
        mouths, spec = candidate.mouths, self._spec
        if len(mouths) < self._expert.num_frames + _MIN_WINDOWS:
            return -1.0
        x0, y0, x1, y1 = (int(v) for v in spec.mouth_box)

        def faces(first: int, last: int) -> UInt8Array:
            canvas = np.zeros((last - first, spec.face_size, spec.face_size, 3), np.uint8)
            canvas[:, y0:y1, x0:x1] = mouths[first:last]
            return canvas

        mean = faces(0, 1)
        mean[0, y0:y1, x0:x1] = np.mean(mouths, axis=0).round()
        mean_mouth = (mouth_crop(as_tensor(mean), spec)[0] * 255).round().to(torch.uint8).numpy()
        heard_ND, seen_ND = embed_clip(
            self._expert, faces, len(mouths), mean_mouth, features_CM, spec
        )
        return find_offset(heard_ND, seen_ND, _MAX_OFFSET).confidence


class _Sound:
    """Stretches of a file's sound, each after the one before."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        self._chunks = stream_audio(path, sample_rate)
        self._held = np.zeros(0, np.float32)
        self._first = 0

    def read(self, first: int, last: int) -> FloatArray:
        """Samples float32 [last - first]; silence where the sound has ended."""
        while self._first + len(self._held) < last:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._held = np.concatenate([self._held, chunk])
            passed = max(0, min(first - self._first, len(self._held)))
            self._held, self._first = self._held[passed:], self._first + passed
        stretch = self._held[first - self._first : last - self._first]
        return np.pad(stretch, (0, last - first - len(stretch)))
