"""Write the model card of a checkpoint: data, licence, figures and limits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talkinghead.errors import UsageError
from talkinghead.models.checkpoint import GENERATOR, default_checkpoint

_FIGURES = {
    "r_own": "mouth-opening correlation with the real mouth",
    "r_own_speech": "the same on frames with speech",
    "r_other": "with another clip's audio",
    "motion_ratio": "motion relative to the real mouth",
    "l1_own": "L1 around the mouth",
    "lse_d": "LSE-D of the sync expert",
}
_CARD = """\
---
library_name: talkinghead
pipeline_tag: image-to-video
license: {license_id}
tags: [lip-sync, talking-head, audio-visual]
---

{body}

## Use

```python
from talkinghead import LipSyncPredictor

predictor = LipSyncPredictor.from_pretrained("OWNER/NAME")  # or a folder with these files
predictor.render("photo.jpg", "speech.wav", "talking.mp4")
```
"""
_BODY = """\
# Lip-sync generator

| | |
|---|---|
| model | `LipSyncGenerator`, {size}, {fps} Hz, {mouth} x {mouth} pixel mouth |
| training data | {trained_on} |
| licence | {license} |

## Figures

{figures}

## Limits

- The model imitates the speakers of its training data. On other faces, languages and recordings
  the mouth may follow the speech less well; measure it with `talkinghead evaluate input=VIDEOS`.
- The mouth is generated at {mouth} x {mouth} pixels; in a large face its interior is soft.

Do not use it to make a person appear to say what they did not agree to say.
"""


def format_card(
    checkpoint: str | Path, entries: Mapping[str, Any], scores: str | Path | None = None
) -> str:
    """Return the model card of a checkpoint as Markdown with a metadata header.

    The card of the checkpoint "default" is that of the packaged weights. `scores` is the
    scores.json of `talkinghead evaluate`, for the figures.

    Raises:
        UsageError: The scores cannot be read.
    """
    license_name = str(entries.get("license", "unknown"))
    is_identifier = re.fullmatch(r"(cc|mit|apache|bsd|gpl)[\w.-]*", license_name.lower())
    license_id = license_name.lower() if is_identifier else "other"
    if default_checkpoint() == Path(checkpoint) or str(checkpoint) == "default":
        body = _packaged_card()
    else:
        av = entries["av"]
        body = _BODY.format(
            size=f"dimension {entries[GENERATOR].get('dim', 'default')}",
            fps=f"{av['fps_num'] / av['fps_den']:g}",
            mouth=av["mouth_size"],
            trained_on=entries.get("trained_on", "unknown"),
            license=license_name,
            figures=_figures(scores),
        )
    return _CARD.format(license_id=license_id, body=body.rstrip())


def _packaged_card() -> str:
    """Return the first of the cards beside the packaged weights, which is the generator's."""
    text = (default_checkpoint().parent / "README.md").read_text(encoding="utf-8")
    return "# Model card: " + text.split("# Model card: ")[1]


def _figures(scores: str | Path | None) -> str:
    if scores is None:
        return "Not measured. `talkinghead evaluate` measures them on a held-out corpus."
    try:
        groups = json.loads(Path(scores).read_text(encoding="utf-8"))["groups"]
        columns = {
            f"{name} ({group['num_clips']} clips)": group["scores"]
            for name, group in groups.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"scores={scores} cannot be read ({type(error).__name__}): give the scores.json of "
            "talkinghead evaluate"
        ) from error
    lines = ["`talkinghead evaluate`, mean over clips:", "", f"| | {' | '.join(columns)} |"]
    lines.append(f"|---{'|---' * len(columns)}|")
    for name, text in _FIGURES.items():
        means = [column.get(name, {}).get("mean") for column in columns.values()]
        if any(mean is not None for mean in means):
            cells = ("" if mean is None else f"{mean:.3g}" for mean in means)
            lines.append(f"| {text} (`{name}`) | {' | '.join(cells)} |")
    return "\n".join(lines)
