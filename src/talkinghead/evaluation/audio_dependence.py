"""Does a model depend on its sound at all? One that does not has learned nothing about speech."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from talkinghead.errors import TalkingHeadError
from talkinghead.evaluation.metrics import Interval, bootstrap_interval
from talkinghead.evaluation.report.summary import Scored

logger = logging.getLogger(__name__)


class AudioIndependentModelError(TalkingHeadError):
    """A checkpoint makes the same of its own and of another clip's sound."""


@dataclass(frozen=True)
class AudioDependence:
    """What another clip's sound changes, over all clips, with 95 % bootstrap intervals.

    Attributes:
        pixels: `l1_ratio` less 1: how much further off the mouth's pixels are.
        motion: `r_own` less `r_other`: how much worse the mouth's opening follows the real one.
    """

    pixels: Interval
    motion: Interval

    @property
    def is_known(self) -> bool:
        """Whether any clip had another's sound put to it."""
        return self.pixels.num_clips + self.motion.num_clips > 0

    @property
    def listens(self) -> bool:
        """Whether either is above 0 by more than its interval."""
        return self.pixels.low > 0 or self.motion.low > 0

    def describe(self) -> str:
        """Both figures in a sentence."""
        if not self.is_known:
            return "There was no other clip whose sound could have been put to these."
        ratio, r = self.pixels, self.motion
        return (
            f"With another clip's sound the mouth's L1 is {ratio.mean:+.1%} "
            f"({ratio.low:+.1%} to {ratio.high:+.1%}), and r with the real opening falls by "
            f"{r.mean:.2f} ({r.low:.2f} to {r.high:.2f})."
        )

    def to_dict(self) -> dict[str, Any]:
        """What scores.json holds."""
        return {
            "l1_ratio_minus_1": asdict(self.pixels),
            "r_own_minus_r_other": asdict(self.motion),
            "listens": self.listens if self.is_known else None,
        }


def measure_audio_dependence(clips: Sequence[Scored]) -> AudioDependence:
    """The verdict over all clips of an evaluation."""

    def column(name: str) -> np.ndarray:
        return np.array([clip.values.get(name, math.nan) for clip in clips])

    return AudioDependence(
        bootstrap_interval(column("l1_ratio") - 1),
        bootstrap_interval(column("r_own") - column("r_other")),
    )


def require_audio_dependence(listening: AudioDependence, checkpoint: str) -> None:
    """Refuses a model that does not depend on its sound; warns where that cannot be told.

    Raises:
        AudioIndependentModelError: neither figure is above 0 by more than its interval.
    """
    if not listening.is_known:
        logger.warning("whether %s listens is not known: %s", checkpoint, listening.describe())
    elif not listening.listens:
        raise AudioIndependentModelError(
            f"checkpoint {checkpoint} does not depend on its audio. {listening.describe()} Train "
            "it on, with the sync loss; require_audio_dependence=false reports without this check"
        )
