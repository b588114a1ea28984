"""Prosody of speech that moves the head: stress, intonation, phrases and pauses.

The values at a time depend on the speech up to `LOOKAHEAD_S` later only, and not on the chunks in
which the speech arrives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from talkinghead.features.audio_features import AudioFeatures, StreamingAudioFeatures
from talkinghead.features.mel import MEL_PER_DB, MEL_SILENCE
from talkinghead.predict.source.head.expression.blendshapes import to_weights
from talkinghead.predict.source.head.head_geometry import Floats, smooth_step
from talkinghead.predict.source.head.motion.idle_motion import closure_since
from talkinghead.types import AVSpec, FloatArray

LOOKAHEAD_S = 0.075
"""Duration of the speech after a time that the prosody at that time needs: less than any lip motion
needs."""
# Lower bound of the level of loudness 0, in dB relative to full scale.
_MIN_DB = -75.0
# Rate at which the highest recent level falls.
_DECAY_DB_PER_S = 1.5
# Loudness is 0 at `_FLOOR_DB` below the highest recent level, and 1 at `_RANGE_DB` above that.
_FLOOR_DB, _RANGE_DB = 30.0, 24.0
# Loudness above which a frame is speech, and the mean loudness that is assumed before any speech.
_SPEAKING, _MEAN_LOUDNESS = 0.25, 0.6
# Excess over the mean loudness that does not count as stress.
_MIN_STRESS = 0.05
# Time constants in seconds: syllables, phrases, intonation, the speaker's mean pitch, and activity.
_SYLLABLE_S, _PHRASE_S, _INTONATION_S, _MEAN_PITCH_S, _ACTIVITY_S = 0.06, 1.0, 0.1, 2.0, 0.4
# Pause that ends a phrase.
_PAUSE_S = 0.25
_NEVER_S = 1e3
# Yaw, pitch and roll in degrees: spread of the poses of phrases, nod at full stress, and raise of
# the head per octave of pitch above the mean.
_PHRASE_DEG = np.array([2.6, 1.0, 1.6])
_NOD_DEG, _RAISE_DEG = 9.0, 3.0
_CHANGE_S = 0.8
# Weight of raised brows at full stress and per octave of pitch above the mean, and its maximum.
_BROW_STRESS, _BROW_RISE, _MAX_BROW = 0.8, 0.6, 0.45
# Fraction of the phrases with a blink at their end.
_BLINK_PROBABILITY = 0.5


@dataclass(frozen=True)
class SpeechGesture:
    """Prosody at one time.

    Attributes:
        stress: loudness of the syllable above the phrase's mean, 0 to 1.
        rise: pitch above the speaker's mean in octaves.
        activity: 0 in silence to 1 in speech, changing slowly.
        phrase: number of phrases so far.
        phrase_s: time since the start of the phrase.
        pause_s: time since the end of the last phrase.
    """

    stress: float = 0.0
    rise: float = 0.0
    activity: float = 0.0
    phrase: int = 0
    phrase_s: float = _NEVER_S
    pause_s: float = _NEVER_S

    def pose_deg(self, seed: int) -> FloatArray:
        """Return the yaw, pitch and roll of the head in degrees, float32 [3]."""
        before, now = (_phrase_pose(seed, number) for number in (self.phrase - 1, self.phrase))
        pose = before + smooth_step(self.phrase_s / _CHANGE_S) * (now - before)
        pose *= self.activity
        pose[1] += _NOD_DEG * self.stress - _RAISE_DEG * self.rise
        return np.asarray(pose, np.float32)

    @property
    def raised_brows(self) -> FloatArray:
        """Weights of the blendshapes that raise the brows on emphasis, float32 [52]."""
        raised = min(max(_BROW_STRESS * self.stress + _BROW_RISE * self.rise, 0.0), _MAX_BROW)
        names = ("browInnerUp", "browOuterUpLeft", "browOuterUpRight")
        return to_weights(dict.fromkeys(names, raised))

    def closure(self, seed: int) -> float:
        """Return the closure of the eyes by a blink at the end of a phrase, 0 to 1."""
        closure = closure_since(self.pause_s)
        # The phrase that follows the pause may have begun.
        number = self.phrase - (self.phrase_s < self.pause_s)
        if closure == 0 or np.random.default_rng((seed, number, 1)).random() > _BLINK_PROBABILITY:
            return 0.0
        return closure


class SpeechMotion:
    """Stream of the prosody that moves the head.

    Args:
        spec: the AVSpec; speech has its sample rate.
    """

    def __init__(self, spec: AVSpec) -> None:
        self._features = StreamingAudioFeatures(AudioFeatures(spec, ("prosody",)))
        self._rate = float(spec.mels_per_second)
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self._features.reset()
        self._gestures: list[SpeechGesture] = []
        self._num_dropped = 0
        self._loudest_db = _MIN_DB + _FLOOR_DB
        self._fast = self._rise = self._activity = 0.0
        self._slow = _MEAN_LOUDNESS
        self._mean_pitch: float | None = None
        self._phrase, self._silence_s = 0, _NEVER_S
        self._phrase_s = self._pause_s = _NEVER_S

    def push(self, samples: FloatArray) -> None:
        """Append speech, float32 [num_samples] in [-1, 1]."""
        for pitch, energy, voicing in self._features.push(torch.from_numpy(samples)).T.tolist():
            self._gestures.append(self._next(pitch, energy, voicing))

    def at(self, time_s: float) -> SpeechGesture:
        """Return the prosody at a time; after the end of the speech, the last one."""
        index = math.floor((time_s + LOOKAHEAD_S) * self._rate) - 2 - self._num_dropped
        index = min(index, len(self._gestures) - 1)
        return self._gestures[index] if index >= 0 else SpeechGesture()

    def drop_before(self, time_s: float) -> None:
        """Free the memory of the prosody before a time; the last value is kept."""
        count = math.floor(time_s * self._rate) - self._num_dropped
        count = min(count, len(self._gestures) - 1)
        if count > 0:
            del self._gestures[:count]
            self._num_dropped += count

    def _next(self, pitch: float, energy: float, voicing: float) -> SpeechGesture:
        step_s = 1 / self._rate
        level_db = (energy - MEL_SILENCE) / MEL_PER_DB - 100
        self._loudest_db = max(
            level_db, self._loudest_db - _DECAY_DB_PER_S * step_s, _MIN_DB + _FLOOR_DB
        )
        loudness = min(max((level_db - self._loudest_db + _FLOOR_DB) / _RANGE_DB, 0.0), 1.0)
        self._fast += step_s / _SYLLABLE_S * (loudness - self._fast)
        if loudness > _SPEAKING:
            self._slow += step_s / _PHRASE_S * (loudness - self._slow)
        rise = 0.0
        if voicing > 0.5 and loudness > _SPEAKING:
            mean = pitch if self._mean_pitch is None else self._mean_pitch
            self._mean_pitch = mean + step_s / _MEAN_PITCH_S * (pitch - mean)
            rise = min(max(pitch - mean, -0.5), 0.5)
        self._rise += step_s / _INTONATION_S * (rise - self._rise)
        self._count_phrases(loudness > _SPEAKING, step_s)
        is_active = self._silence_s < _PAUSE_S
        self._activity += step_s / _ACTIVITY_S * (is_active - self._activity)
        return SpeechGesture(
            max(0.0, self._fast - self._slow - _MIN_STRESS),
            self._rise,
            self._activity,
            self._phrase,
            self._phrase_s,
            self._pause_s,
        )

    def _count_phrases(self, is_speech: bool, step_s: float) -> None:
        self._phrase_s = min(self._phrase_s + step_s, _NEVER_S)
        self._pause_s = min(self._pause_s + step_s, _NEVER_S)
        if is_speech:
            if self._silence_s >= _PAUSE_S:
                self._phrase, self._phrase_s = self._phrase + 1, 0.0
            self._silence_s = 0.0
            return
        if self._silence_s < _PAUSE_S <= self._silence_s + step_s:
            self._pause_s = 0.0
        self._silence_s += step_s


def _phrase_pose(seed: int, number: int) -> Floats:
    """Return the pose of a phrase in degrees, [3]; 0 before the first one."""
    if number < 1:
        return np.zeros(3)
    return _PHRASE_DEG * np.random.default_rng((seed, number)).standard_normal(3).clip(-2, 2)
