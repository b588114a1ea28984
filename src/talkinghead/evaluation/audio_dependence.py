"""Check that generated mouths depend on the audio."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from talkinghead.errors import TalkingHeadError
from talkinghead.evaluation.metrics import Interval, bootstrap_interval
from talkinghead.evaluation.metrics.statistics import MIN_CLIPS
from talkinghead.evaluation.report.results import ClipResult, Verdict

logger = logging.getLogger(__name__)


class AudioIndependentModelError(TalkingHeadError):
    """Error for a checkpoint whose generated frames do not depend on the audio."""


@dataclass(frozen=True)
class AudioDependence:
    """Effect of wrong audio over all clips, with 95 % bootstrap intervals.

    Attributes:
        pixels: `l1_ratio` minus 1, the relative increase of the mouth's pixel error.
        motion: `r_own` minus `r_other`, the decrease of the correlation with the real opening.
    """

    pixels: Interval
    motion: Interval

    @property
    def depends_on_audio(self) -> bool | None:
        """Return whether either effect is significantly above 0; None if clips are too few.

        At least `MIN_CLIPS` clips are needed.

        The interval of a single clip has zero width, so it would always exclude 0.
        """
        effects = [effect for effect in (self.pixels, self.motion) if effect.has_enough_clips]
        return any(effect.low > 0 for effect in effects) if effects else None

    def describe(self) -> str:
        """Return a sentence with the effects of another clip's audio on pixels and motion."""
        ratio, r = self.pixels, self.motion
        num_clips = max(ratio.num_clips, r.num_clips)
        if num_clips == 0:
            return "There is no other clip whose audio could be used for comparison."
        if self.depends_on_audio is None:
            clips = "1 clip" if num_clips == 1 else f"{num_clips} clips"
            return (
                f"Audio from other clips was compared on {clips}; at least {MIN_CLIPS} are needed."
            )
        return (
            f"With another clip's audio the mouth's L1 changes by {ratio.mean:+.1%} "
            f"({ratio.low:+.1%} to {ratio.high:+.1%}), and r with the real opening falls by "
            f"{r.mean:.2f} ({r.low:.2f} to {r.high:.2f})."
        )

    def verdict(self) -> Verdict:
        """Return the verdict for the report page."""
        if self.depends_on_audio is None:
            title = "Too few clips to tell whether the model depends on its audio."
            return Verdict(title, self.describe(), "unknown")
        if self.depends_on_audio:
            return Verdict("The model depends on its audio.", self.describe(), "good")
        return Verdict("The model does not depend on its audio.", self.describe(), "bad")

    def to_dict(self) -> dict[str, Any]:
        """Return the entry for scores.json."""
        return {
            "l1_ratio_minus_1": asdict(self.pixels),
            "r_own_minus_r_other": asdict(self.motion),
            "depends_on_audio": self.depends_on_audio,
        }


def measure_audio_dependence(clips: Sequence[ClipResult]) -> AudioDependence:
    """Return the effect of wrong audio over all clips."""

    def column(name: str) -> np.ndarray:
        return np.array([clip.values.get(name, math.nan) for clip in clips])

    return AudioDependence(
        bootstrap_interval(column("l1_ratio") - 1),
        bootstrap_interval(column("r_own") - column("r_other")),
    )


def require_audio_dependence(dependence: AudioDependence, checkpoint: str) -> None:
    """Reject a model whose output does not depend on the audio; warn if clips are too few.

    Raises:
        AudioIndependentModelError: neither effect is significantly above 0.
    """
    if dependence.depends_on_audio is None:
        logger.warning(
            "too few clips to tell whether %s depends on its audio: %s",
            checkpoint,
            dependence.describe(),
        )
    elif not dependence.depends_on_audio:
        raise AudioIndependentModelError(
            f"checkpoint {checkpoint} does not depend on its audio. {dependence.describe()} "
            "Continue training with the sync loss, or set require_audio_dependence=false to report "
            "without this check"
        )
