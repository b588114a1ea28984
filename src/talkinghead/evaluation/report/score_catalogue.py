"""Every score's place in a report: its section, its name for people, its unit, what is good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from talkinghead.types import FloatArray

Better = Literal["higher", "lower", "one", "zero", ""]


@dataclass(frozen=True)
class ScoreInfo:
    """`better` says what is good: higher, lower, near one, near zero, or nothing by itself."""

    section: str
    label: str
    unit: str = ""
    better: Better = ""
    digits: int = 3

    def badness(self, values: FloatArray) -> FloatArray:
        """Values so turned that less is better."""
        if self.better == "higher":
            return -values
        if self.better == "one":
            return np.abs(values - 1)
        return np.abs(values) if self.better == "zero" else values


_MOTION, _PIXELS, _SYNC, _PERSON = "The mouth's motion", "Pixels", "Sync", "The person"
_EYES, _FRAMES = "eye distances", "frames"

CATALOGUE: dict[str, ScoreInfo] = {
    "r_own": ScoreInfo(_MOTION, "follows the real opening, r", "", "higher", 2),
    "r_own_speech": ScoreInfo(_MOTION, "the same while somebody speaks, r", "", "higher", 2),
    "r_other": ScoreInfo(_MOTION, "with another clip's sound, r", "", "", 2),
    "r_elsewhere": ScoreInfo(_MOTION, "… from its middle on, r", "", "", 2),
    "r_follows_other": ScoreInfo(_MOTION, "follows that other clip, r", "", "higher", 2),
    "r_silence": ScoreInfo(_MOTION, "with silence, r", "", "zero", 2),
    "r_ceiling": ScoreInfo(_MOTION, "what measuring alone costs, r", "", "", 2),
    "motion_ratio": ScoreInfo(_MOTION, "how far it moves, over the real", "", "one", 2),
    "opening_own": ScoreInfo(_MOTION, "mean opening", _EYES),
    "opening_real": ScoreInfo(_MOTION, "mean opening, real", _EYES),
    "opening_pauses": ScoreInfo(_MOTION, "opening in pauses", _EYES),
    "opening_pauses_real": ScoreInfo(_MOTION, "opening in pauses, real", _EYES),
    "opening_closed": ScoreInfo(_MOTION, "opening when closed, real", _EYES),
    "opening_silence": ScoreInfo(_MOTION, "opening when it hears silence", _EYES),
    "openness_silence": ScoreInfo(
        _MOTION, "the same, by its median", "of the real range", "zero", 2
    ),
    "lmd": ScoreInfo(_MOTION, "distance of the lips' landmarks", _EYES, "lower", 4),
    "found": ScoreInfo(_MOTION, "frames with a face", "share", "higher", 2),
    "psnr": ScoreInfo(_PIXELS, "PSNR, mouth", "dB", "higher", 1),
    "ssim": ScoreInfo(_PIXELS, "SSIM, mouth", "", "higher"),
    "lpips": ScoreInfo(_PIXELS, "LPIPS, mouth (shift-tolerant VGG)", "", "lower"),
    "fid": ScoreInfo(_PIXELS, "FID, face", "", "lower", 1),
    "l1_own": ScoreInfo(_PIXELS, "L1, mouth", "of 1", "lower", 4),
    "l1_other": ScoreInfo(_PIXELS, "L1 with another clip's sound", "of 1", "", 4),
    "l1_elsewhere": ScoreInfo(_PIXELS, "… from its middle on", "of 1", "", 4),
    "l1_reference": ScoreInfo(_PIXELS, "L1 of the copied reference", "of 1", "", 4),
    "l1_ratio": ScoreInfo(_PIXELS, "L1, other over own sound", "", "higher"),
    "l1_ratio_speech": ScoreInfo(_PIXELS, "… while somebody speaks", "", "higher"),
    "l1_ratio_elsewhere": ScoreInfo(_PIXELS, "… elsewhere over own", "", "higher"),
    "l1_ratio_elsewhere_speech": ScoreInfo(_PIXELS, "… while somebody speaks", "", "higher"),
    "lips_l1_own": ScoreInfo(_PIXELS, "L1 around the lips", "of 1", "lower", 4),
    "lips_l1_other": ScoreInfo(_PIXELS, "… with another clip's sound", "of 1", "", 4),
    "lips_l1_elsewhere": ScoreInfo(_PIXELS, "… from its middle on", "of 1", "", 4),
    "lips_l1_reference": ScoreInfo(_PIXELS, "… of the copied reference", "of 1", "", 4),
    "lips_l1_ratio": ScoreInfo(_PIXELS, "… other over own sound", "", "higher"),
    "lips_l1_ratio_speech": ScoreInfo(_PIXELS, "… while somebody speaks", "", "higher"),
    "lips_l1_ratio_elsewhere": ScoreInfo(_PIXELS, "… elsewhere over own", "", "higher"),
    "lips_l1_ratio_elsewhere_speech": ScoreInfo(_PIXELS, "… while somebody speaks", "", "higher"),
    "shown_l1_own": ScoreInfo(_PIXELS, "L1 of what is shown", "of 1", "lower", 4),
    "shown_l1_other": ScoreInfo(_PIXELS, "… with another clip's sound", "of 1", "", 4),
    "shown_l1_elsewhere": ScoreInfo(_PIXELS, "… from its middle on", "of 1", "", 4),
    "shown_l1_reference": ScoreInfo(_PIXELS, "… of the copied reference", "of 1", "", 4),
    "shown_l1_ratio": ScoreInfo(_PIXELS, "… other over own sound", "", "higher"),
    "shown_l1_ratio_speech": ScoreInfo(_PIXELS, "… while somebody speaks", "", "higher"),
    "shown_l1_ratio_elsewhere": ScoreInfo(_PIXELS, "… elsewhere over own", "", "higher"),
    "shown_l1_ratio_elsewhere_speech": ScoreInfo(_PIXELS, "… while somebody speaks", "", "higher"),
    "sharpness_ratio": ScoreInfo(_PIXELS, "sharpness, over the real", "", "one", 2),
    "jitter": ScoreInfo(_PIXELS, "jitter outside the mouth", "of 255", "lower", 2),
    "lse_d": ScoreInfo(_SYNC, "LSE-D", "of 2", "lower"),
    "lse_c": ScoreInfo(_SYNC, "LSE-C", "of 2", "higher"),
    "sync_offset": ScoreInfo(_SYNC, "offset (sound late: positive)", _FRAMES, "zero", 1),
    "lse_d_at_zero": ScoreInfo(_SYNC, "distance at zero shift", "of 2", "lower"),
    "real_lse_d": ScoreInfo(_SYNC, "LSE-D, real", "of 2"),
    "real_lse_c": ScoreInfo(_SYNC, "LSE-C, real", "of 2"),
    "real_sync_offset": ScoreInfo(_SYNC, "offset, real", _FRAMES, "", 1),
    "real_lse_d_at_zero": ScoreInfo(_SYNC, "distance at zero shift, real", "of 2"),
    "syncnet_lse_d": ScoreInfo(_SYNC, "SyncNet LSE-D", "", "lower", 2),
    "syncnet_lse_c": ScoreInfo(_SYNC, "SyncNet LSE-C", "", "higher", 2),
    "syncnet_sync_offset": ScoreInfo(_SYNC, "SyncNet offset", _FRAMES, "zero", 1),
    "syncnet_lse_d_at_zero": ScoreInfo(_SYNC, "SyncNet distance at zero", "", "lower", 2),
    "real_syncnet_lse_d": ScoreInfo(_SYNC, "SyncNet LSE-D, real", "", "", 2),
    "real_syncnet_lse_c": ScoreInfo(_SYNC, "SyncNet LSE-C, real", "", "", 2),
    "real_syncnet_sync_offset": ScoreInfo(_SYNC, "SyncNet offset, real", _FRAMES, "", 1),
    "real_syncnet_lse_d_at_zero": ScoreInfo(_SYNC, "SyncNet distance at zero, real", "", "", 2),
    "identity": ScoreInfo(_PERSON, "identity, cosine", "", "higher"),
}
"""In the order of the page's table."""
