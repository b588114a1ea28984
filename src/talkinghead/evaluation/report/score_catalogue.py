"""Section, label, unit and direction of every score in a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from talkinghead.types import FloatArray

Better = Literal["higher", "lower", "one", "zero", ""]


@dataclass(frozen=True)
class ScoreInfo:
    """Description of a score; `better` is empty if no direction of the score is better."""

    section: str
    label: str
    unit: str = ""
    better: Better = ""
    digits: int = 3

    def badness(self, values: FloatArray) -> FloatArray:
        """Return the values, transformed so that lower is better."""
        if self.better == "higher":
            return -values
        if self.better == "one":
            return np.abs(values - 1)
        return np.abs(values) if self.better == "zero" else values


_MOTION, _PIXELS, _SYNC, _PERSON = "Mouth motion", "Image quality", "Synchronisation", "Identity"
_EYES, _FRAMES = "eye distances", "frames"


def _l1_scores(prefix: str, label: str) -> dict[str, ScoreInfo]:
    """Return the L1 scores of a region: for each audio, and as ratios of wrong to own audio."""
    scores = {f"{prefix}l1_own": ScoreInfo(_PIXELS, label, "of 1", "lower", 4)}
    for name, text in (
        ("other", "… with another clip's audio"),
        ("elsewhere", "… with the other audio rotated by half"),
        # The full label, because the page may leave out the rows before this one.
        ("reference", f"{label}, copied reference"),
    ):
        scores[f"{prefix}l1_{name}"] = ScoreInfo(_PIXELS, text, "of 1", "", 4)
    for suffix, text in (("", "other"), ("_elsewhere", "rotated")):
        ratio, name = f"… ratio, {text} / own audio", f"{prefix}l1_ratio{suffix}"
        scores[name] = ScoreInfo(_PIXELS, ratio, "", "higher")
        scores[f"{name}_speech"] = ScoreInfo(_PIXELS, f"{ratio}, during speech", "", "higher")
    return scores


def _sync_scores(prefix: str, label: str, unit: str, digits: int) -> dict[str, ScoreInfo]:
    """Return the scores of one sync network for the generated and the real video."""
    scores: dict[str, ScoreInfo] = {}
    for real, suffix in (("", ""), ("real_", ", real")):
        for name, text, better in (
            ("lse_d", "LSE-D", "lower"),
            ("lse_c", "LSE-C", "higher"),
            ("sync_offset", "offset (audio late: positive)", "zero"),
            ("lse_d_at_zero", "distance at zero shift", "lower"),
        ):
            frames = (_FRAMES, 1) if name == "sync_offset" else (unit, digits)
            direction: Better = "" if real else better  # type: ignore[assignment]
            scores[f"{real}{prefix}{name}"] = ScoreInfo(
                _SYNC, f"{label}{text}{suffix}", frames[0], direction, frames[1]
            )
    return scores


CATALOGUE: dict[str, ScoreInfo] = {
    "r_own": ScoreInfo(_MOTION, "correlation with the real opening, r", "", "higher", 2),
    "r_in_step": ScoreInfo(_MOTION, "… at the best of eleven shifts, r", "", "higher", 2),
    "step_frames": ScoreInfo(_MOTION, "… the shift (generated late: positive)", _FRAMES, "zero", 1),
    "step_error": ScoreInfo(_MOTION, "… standard error of the shift", _FRAMES, "", 1),
    "r_own_speech": ScoreInfo(_MOTION, "… during speech, r", "", "higher", 2),
    "r_other": ScoreInfo(_MOTION, "… with another clip's audio, r", "", "", 2),
    "r_elsewhere": ScoreInfo(_MOTION, "… with the other audio rotated by half, r", "", "", 2),
    "r_follows_other": ScoreInfo(
        _MOTION, "correlation with the other clip's opening, r", "", "higher", 2
    ),
    "r_silence": ScoreInfo(_MOTION, "… with silence, r", "", "zero", 2),
    "r_ceiling": ScoreInfo(_MOTION, "upper bound from remeasuring the real clip, r", "", "", 2),
    "motion_ratio": ScoreInfo(_MOTION, "motion amplitude, relative to real", "", "one", 2),
    "opening_own": ScoreInfo(_MOTION, "mean opening", _EYES),
    "opening_real": ScoreInfo(_MOTION, "mean opening, real", _EYES),
    "opening_pauses": ScoreInfo(_MOTION, "opening in pauses", _EYES),
    "opening_pauses_real": ScoreInfo(_MOTION, "opening in pauses, real", _EYES),
    "opening_closed": ScoreInfo(_MOTION, "closed mouth (5th percentile), real", _EYES),
    "opening_silence": ScoreInfo(_MOTION, "opening with silent audio", _EYES),
    "openness_silence": ScoreInfo(
        _MOTION, "median opening with silent audio", "of the real range", "zero", 2
    ),
    "closure_rate": ScoreInfo(_MOTION, "closed on p, b, m", "fraction", "higher", 2),
    "closure_rate_real": ScoreInfo(_MOTION, "… real", "fraction", "", 2),
    "rounding_rate": ScoreInfo(_MOTION, "narrow on w, u, o", "fraction", "higher", 2),
    "rounding_rate_real": ScoreInfo(_MOTION, "… real", "fraction", "", 2),
    "r_width": ScoreInfo(_MOTION, "correlation of the mouth width, in step, r", "", "higher", 2),
    "r_lip_shape": ScoreInfo(_MOTION, "correlation of all lip points, in step, r", "", "higher", 2),
    "lip_shape_error": ScoreInfo(_MOTION, "lip shape error, in step", _EYES, "lower", 4),
    "lmd": ScoreInfo(_MOTION, "lip landmark distance", _EYES, "lower", 4),
    "found": ScoreInfo(_MOTION, "frames with a detected face", "fraction", "higher", 2),
    "psnr": ScoreInfo(_PIXELS, "PSNR, mouth", "dB", "higher", 1),
    "ssim": ScoreInfo(_PIXELS, "SSIM, mouth", "", "higher"),
    "lpips": ScoreInfo(_PIXELS, "LPIPS, mouth (shift-tolerant VGG)", "", "lower"),
    "fid": ScoreInfo(_PIXELS, "FID, face", "", "lower", 1),
    **_l1_scores("", "L1, mouth"),
    **_l1_scores("lips_", "L1 around the lips"),
    **_l1_scores("shown_", "L1 after compositing"),
    "sharpness_ratio": ScoreInfo(_PIXELS, "sharpness, relative to real", "", "one", 2),
    "jitter": ScoreInfo(_PIXELS, "jitter outside the mouth", "of 255", "lower", 2),
    **_sync_scores("", "", "of 2", 3),
    **_sync_scores("syncnet_", "SyncNet ", "", 2),
    "lip_offset": ScoreInfo(_SYNC, "offset by lip prior (audio late: positive)", _FRAMES, "", 1),
    "lip_offset_error": ScoreInfo(_SYNC, "… standard error", _FRAMES, "lower", 1),
    "lip_offset_r": ScoreInfo(_SYNC, "… correlation of the lip motion, r", "", "higher", 2),
    "identity": ScoreInfo(_PERSON, "identity, cosine", "", "higher"),
}
"""All scores, in the order of the table."""
