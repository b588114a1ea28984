"""Select the speaking face, whose mouth is best synchronised with the video's audio."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import as_tensor, invert, mouth_crop, warp_face
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import (
    FoundFaces,
    MultiTracker,
    box_centre,
    select_largest_face,
)
from talkinghead.media.reader import stream_audio
from talkinghead.media.timing import round_half_up, seconds_to_samples
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.predict.source.face_tracks import (
    MAX_FACES,
    align_faces,
    interleave_tracks,
    track_faces,
)
from talkinghead.predict.source.playback import decode_frames
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.sync.embeddings import embed_clip
from talkinghead.sync.offset import find_offset
from talkinghead.types import AVSpec, Face, FloatArray, UInt8Array

# Only the beginning of each shot is analysed; later changes of the speaker are ignored.
_MAX_ANALYSED_S = 10
_MAX_OFFSET = 5
_MIN_WINDOWS = 12
# A face is not a speaker if the standard deviation of its mouth opening, smoothed over a window, is
# below the minimum in a shot of at least 3 s. Measured: 0.0087 or more for speaking faces, 0.0062
# or less for still faces, 0.0015 to 0.042 in pauses.
_MIN_OPENING_DEVIATION, _OPENING_WINDOW_S, _MIN_SILENT_S = 0.0065, 0.2, 3


@dataclass
class _Candidate:
    """A face at the beginning of a shot, with its centre in the image at each frame time.

    `mouths` are crops of the mouth box, uint8 [side, side, 3], at the frame rate of the AVSpec.
    While the face is not visible, its last crop is repeated.
    """

    times_s: list[Fraction] = field(default_factory=list)
    centres_xy: list[FloatArray] = field(default_factory=list)
    mouths: list[UInt8Array] = field(default_factory=list)
    openings: list[float] = field(default_factory=list)

    @property
    def is_still(self) -> bool:
        """Whether the mouth opening hardly changes; the mean over a window reduces its noise."""
        duration_s = max(float(self.times_s[-1] - self.times_s[0]), 1e-6)
        window = max(1, round(_OPENING_WINDOW_S * len(self.openings) / duration_s))
        means = np.convolve(self.openings, np.full(window, 1 / window), "valid")
        return float(means.std()) < _MIN_OPENING_DEVIATION


@dataclass
class _Shot:
    """A shot and its faces, keyed by slot.

    `speaker` remains None if the shot is too short, or if nobody speaks (`is_silent`).
    """

    start_s: Fraction
    candidates: dict[int, _Candidate] = field(default_factory=dict)
    speaker: _Candidate | None = None
    is_silent: bool = False
    is_open: bool = True


class ActiveSpeakerSelector:
    """A callable that selects the speaking face of a video with audio (a `FaceSelector`).

    The video is decoded a second time, ahead of the frames that are being tracked, shot by shot;
    `close` closes the file. `fps` is the nominal frame rate of the video, and `spec` the AVSpec of
    the sync expert.
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
        self._audio = _AudioSegments(path, spec.sample_rate)
        self._shots = [_Shot(Fraction(0))]
        self._analysis = self._analyse(path, fps, detector)
        self._analysed_s: Fraction | None = Fraction(-1)

    def __call__(self, found: FoundFaces) -> Face | None:
        """Return the face nearest to the speaker's position at a given time of the video.

        The result is None in a shot in which nobody on screen speaks.
        """
        time_s = found.time_s
        while self._analysed_s is not None and self._analysed_s < time_s:
            self._analysed_s = next(self._analysis, None)
        shot = next(shot for shot in reversed(self._shots) if shot.start_s <= time_s)
        if shot.is_silent:
            return None
        if shot.speaker is None or not found.faces:
            return select_largest_face(found)
        gaps_s = [abs(seen_s - time_s) for seen_s in shot.speaker.times_s]
        speaker_xy = shot.speaker.centres_xy[gaps_s.index(min(gaps_s))]
        return min(
            found.faces,
            key=lambda face: float(np.linalg.norm(box_centre(face.box) - speaker_xy)),
        )

    def close(self) -> None:
        """Close the file."""
        self._analysis.close()
        self._audio.close()

    def _analyse(self, path: Path, fps: Fraction, detector: FaceDetector) -> Generator[Fraction]:
        """Decode and analyse the video; yield each time up to which the speaker is selected."""
        with closing(decode_frames(path, fps)) as frames:
            tracks = track_faces(frames, MultiTracker(detector, MAX_FACES))
            yield from self._select_speakers([align_faces(t, self._spec, fps) for t in tracks])

    def _select_speakers(self, tracks: list[Generator[SourceFrame]]) -> Generator[Fraction]:
        """Analyse the faces of a video; yield each time up to which the speaker is selected."""
        merged = interleave_tracks(tracks)
        for time_s, group in groupby(merged, key=lambda frame: frame.time_s):
            frames = list(group)
            if frames[0].starts_shot:
                self._select_speaker(self._shots[-1])
                self._shots.append(_Shot(time_s))
            shot = self._shots[-1]
            if time_s - shot.start_s >= _MAX_ANALYSED_S:
                self._select_speaker(shot)
            if shot.is_open:
                self._add_frames(shot, frames)
            else:
                yield time_s
        self._select_speaker(self._shots[-1])

    def _add_frames(self, shot: _Shot, frames: list[SourceFrame]) -> None:
        """Add the faces of one image to the candidates of the shot."""
        x0, y0, x1, y1 = (int(v) for v in self._spec.mouth_box)
        face_centre = np.full(2, self._spec.face_size / 2, np.float32)
        elapsed_s = frames[0].time_s + frames[0].duration_s - shot.start_s
        for frame in frames:
            if frame.transform is None:
                continue
            inverse = invert(frame.transform)
            candidate = shot.candidates.setdefault(frame.slot, _Candidate())
            candidate.times_s.append(frame.time_s)
            candidate.openings.append(frame.opening)
            candidate.centres_xy.append(inverse[:, :2] @ face_centre + inverse[:, 2])
            face = warp_face(frame.image, frame.transform, self._spec.face_size)
            mouth = face[y0:y1, x0:x1].copy()
            # Resample from the video's frame rate to the frame rate of the AVSpec.
            num_missing = round_half_up(elapsed_s * self._spec.fps) - len(candidate.mouths)
            candidate.mouths += [(candidate.mouths or [mouth])[-1]] * (num_missing - 1)
            candidate.mouths += [mouth] * (num_missing > 0)

    def _select_speaker(self, shot: _Shot) -> None:
        """Select the speaker of the shot at the end of its analysis, and discard the mouths."""
        if shot.is_open:
            shot.is_open = False
            self._compare_candidates(shot)
            for candidate in shot.candidates.values():
                candidate.mouths.clear()

    @torch.inference_mode()
    def _compare_candidates(self, shot: _Shot) -> None:
        """Select the candidate with the highest sync confidence as the speaker of the shot."""
        num_frames = max((len(c.mouths) for c in shot.candidates.values()), default=0)
        if num_frames < self._expert.num_frames + _MIN_WINDOWS:
            return
        end_s = shot.start_s + num_frames / self._spec.fps
        first, last = (seconds_to_samples(t, self._spec.sample_rate) for t in (shot.start_s, end_s))
        features_CM = self._features(torch.from_numpy(self._audio.read(first, last)))
        confidences = {
            slot: self._confidence(candidate, features_CM)
            for slot, candidate in shot.candidates.items()
        }
        if num_frames >= _MIN_SILENT_S * self._spec.fps:
            for slot, candidate in shot.candidates.items():
                if candidate.is_still:
                    del confidences[slot]
        shot.is_silent = not confidences
        if confidences:
            shot.speaker = shot.candidates[max(confidences, key=lambda slot: confidences[slot])]

    def _confidence(self, candidate: _Candidate, features_CM: torch.Tensor) -> float:
        """Return the LSE-C of a candidate, or -1 if the face was visible too briefly."""
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
        embeddings = embed_clip(self._expert, faces, len(mouths), mean_mouth, features_CM, spec)
        return find_offset(*embeddings, _MAX_OFFSET).confidence


class _AudioSegments:
    """A reader of successive segments of a file's audio."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        self._chunks = self._decode(path, sample_rate)
        self._buffer = np.zeros(0, np.float32)
        self._buffer_start = 0

    def close(self) -> None:
        """Close the file."""
        self._chunks.close()

    @staticmethod
    def _decode(path: Path, sample_rate: int) -> Generator[FloatArray]:
        """Yield the audio in chunks; the file is opened for the first one."""
        yield from stream_audio(path, sample_rate)

    def read(self, first: int, last: int) -> FloatArray:
        """Return float32 samples `first` to `last - 1`; zeros follow the end of the audio.

        `first` must not decrease between calls.
        """
        while self._buffer_start + len(self._buffer) < last:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._buffer = np.concatenate([self._buffer, chunk])
            num_passed = max(0, min(first - self._buffer_start, len(self._buffer)))
            self._buffer = self._buffer[num_passed:]
            self._buffer_start += num_passed
        segment = self._buffer[first - self._buffer_start : last - self._buffer_start]
        return np.pad(segment, (0, last - first - len(segment)))
