"""Select the speaking face, whose lips move as the video's audio predicts."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import numpy as np

from talkinghead.features.faces.alignment import invert, lip_motion, transform_points, warp_face
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import (
    FoundFaces,
    MultiTracker,
    select_largest_face,
)
from talkinghead.media.reader import stream_audio
from talkinghead.media.timing import num_frames_for, seconds_to_samples
from talkinghead.predict.audio.calibration import SpokenClip, interpolate_lips
from talkinghead.predict.source.face_tracks import (
    MAX_FACES,
    align_faces,
    interleave_tracks,
    track_faces,
)
from talkinghead.predict.source.playback import decode_frames
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.sync.lip_offset import measure_lip_offset
from talkinghead.types import AVSpec, Face, FloatArray

PredictLips = Callable[[SpokenClip], FloatArray]
"""Function that predicts the lip motion [T, 20, 2] of a clip from its audio and reference."""

# Only the beginning of each shot is analysed; later changes of the speaker are ignored.
_MAX_ANALYSED_S = 10
_MIN_ANALYSED_S = 1
_MAX_OFFSET = 5
# Correlation below which a face is not a speaker, in shots of at least 4 s and of 3 to 4 s: chance
# correlations are larger in short shots, but so is the spread of those of speakers.
_MIN_CORRELATION, _MIN_SHORT_CORRELATION, _SHORT_S = 0.3, 0.2, 4
# A face is not a speaker if the standard deviation of its mouth opening, smoothed over a window, is
# below the minimum in a shot of at least 3 s. Measured: 0.0087 or more for speaking faces, 0.0062
# or less for still faces, 0.0015 to 0.042 in pauses.
_MIN_OPENING_DEVIATION, _OPENING_WINDOW_S, _MIN_SILENT_S = 0.0065, 0.2, 3


@dataclass
class Candidate:
    """A face at the beginning of a shot, in the frames that show it.

    `centres_xy` are its centres in the image, `lips` its lips in canonical pixels, [20, 2].
    """

    times_s: list[Fraction] = field(default_factory=list)
    middles_s: list[Fraction] = field(default_factory=list)
    centres_xy: list[FloatArray] = field(default_factory=list)
    lips: list[FloatArray] = field(default_factory=list)
    openings: list[float] = field(default_factory=list)

    def add(self, frame: SourceFrame, spec: AVSpec) -> None:
        """Add a frame, if it shows the face."""
        if frame.transform is None or frame.lips is None:
            return
        inverse = invert(frame.transform)
        centre = np.full(2, spec.face_size / 2, np.float32)
        self.times_s.append(frame.time_s)
        self.middles_s.append(frame.middle_s)
        self.centres_xy.append(inverse[:, :2] @ centre + inverse[:, 2])
        self.lips.append(transform_points(frame.lips, frame.transform))
        self.openings.append(frame.opening)

    @property
    def is_still(self) -> bool:
        """Whether the mouth opening hardly changes; the mean over a window reduces its noise."""
        duration_s = max(float(self.times_s[-1] - self.times_s[0]), 1e-6)
        window = max(1, round(_OPENING_WINDOW_S * len(self.openings) / duration_s))
        means = np.convolve(self.openings, np.full(window, 1 / window), "valid")
        return float(means.std()) < _MIN_OPENING_DEVIATION

    def correlation(self, predicted: FloatArray, start_s: Fraction, fps: Fraction) -> float:
        """Return the correlation of the lip motion with the predicted motion [T, 20, 2] of audio.

        The audio starts at `start_s` and may be late or early by a few frames.
        """
        times_s = np.array([float(middle_s - start_s) for middle_s in self.middles_s])
        lips = interpolate_lips(times_s, np.stack(self.lips), len(predicted), float(fps))
        return measure_lip_offset([(predicted, lip_motion(lips))], _MAX_OFFSET).correlation


def min_correlation(duration_s: float | Fraction) -> float:
    """Return the smallest correlation of a speaker in a shot of at least 3 s."""
    return _MIN_SHORT_CORRELATION if duration_s < _SHORT_S else _MIN_CORRELATION


def canonical_reference(frame: SourceFrame, spec: AVSpec) -> Reference:
    """Return the canonical face of a frame as a reference."""
    assert frame.transform is not None and frame.lips is not None
    image = warp_face(frame.image, frame.transform, spec.face_size)
    lips = transform_points(frame.lips, frame.transform)
    return Reference(image, np.eye(2, 3, dtype=np.float32), lips)


@dataclass
class _Shot:
    """A shot and its faces, keyed by slot.

    `speaker` remains None if the shot is too short, or if nobody speaks (`is_silent`).
    """

    start_s: Fraction
    end_s: Fraction = Fraction(0)
    candidates: dict[int, Candidate] = field(default_factory=dict)
    reference: Reference | None = None
    speaker: Candidate | None = None
    is_silent: bool = False
    is_open: bool = True


class ActiveSpeakerSelector:
    """A callable that selects the speaking face of a video with audio (a `FaceSelector`).

    The video is decoded a second time, ahead of the frames that are being tracked, shot by shot;
    `close` closes the file. `fps` is the nominal frame rate of the video, and `spec` the AVSpec of
    the predicted lip motion.
    """

    def __init__(
        self,
        path: Path,
        fps: Fraction,
        detector: FaceDetector,
        predict_lips: PredictLips,
        spec: AVSpec,
    ) -> None:
        self._name, self._predict_lips, self._spec = str(path), predict_lips, spec
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
            key=lambda face: float(np.linalg.norm(face.box.centre - speaker_xy)),
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
        shot.end_s = frames[0].time_s + frames[0].duration_s
        for frame in frames:
            if frame.transform is None or frame.lips is None:
                continue
            shot.candidates.setdefault(frame.slot, Candidate()).add(frame, self._spec)
            if shot.reference is None:
                # The prediction hardly depends on the face, so that of the first frame is used.
                shot.reference = canonical_reference(frame, self._spec)

    def _select_speaker(self, shot: _Shot) -> None:
        """Select the speaker of the shot at the end of its analysis, and discard its image."""
        if shot.is_open:
            shot.is_open = False
            self._compare_candidates(shot)
            shot.reference = None

    def _compare_candidates(self, shot: _Shot) -> None:
        """Select the candidate whose lips follow the audio best as the speaker of the shot."""
        duration_s = shot.end_s - shot.start_s
        if shot.reference is None or duration_s < _MIN_ANALYSED_S:
            return
        num_frames = num_frames_for(duration_s, self._spec.fps)
        correlations = self._correlations(shot, num_frames)
        if duration_s >= _MIN_SILENT_S:
            correlations = {
                slot: correlation
                for slot, correlation in correlations.items()
                if correlation >= min_correlation(duration_s) and not shot.candidates[slot].is_still
            }
        shot.is_silent = not correlations
        if correlations:
            slot = max(correlations, key=lambda slot: correlations[slot])
            shot.speaker = shot.candidates[slot]

    def _correlations(self, shot: _Shot, num_frames: int) -> dict[int, float]:
        """Return the correlation of each candidate's lips with those that the audio predicts."""
        assert shot.reference is not None
        end_s = shot.start_s + num_frames / self._spec.fps
        first, last = (seconds_to_samples(t, self._spec.sample_rate) for t in (shot.start_s, end_s))
        unknown = np.full((num_frames, 20, 2), np.nan, np.float32)
        samples = self._audio.read(first, last)
        predicted = self._predict_lips(
            SpokenClip(self._name, samples, unknown, shot.reference, self._spec)
        )
        return {
            slot: candidate.correlation(predicted, shot.start_s, self._spec.fps)
            for slot, candidate in shot.candidates.items()
        }


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
