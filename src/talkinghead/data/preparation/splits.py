"""Assignment of clips to the splits "train", "val" and "test"."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Literal

from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.errors import UsageError
from talkinghead.value_rules import UnitFloat, check_fields

_LONG_FRAMES = 20
"""Number of frames of the longest training windows (experiment=sync_expert)."""


@dataclass(frozen=True)
class SplitOptions:
    """Options for the division of a corpus into splits.

    Attributes:
        val_fraction: Expected fraction of the clips (or speakers) in split "val", which gets at
            least one if the fraction is above 0.
        test_fraction: Expected fraction of the clips (or speakers) in split "test".
        split_by: "clip", or "speaker" to keep all clips of a speaker in one split.
        holdout_speakers: Speakers whose clips are all in split "test".

    Raises:
        UsageError: A value is out of range.
    """

    val_fraction: UnitFloat = 0.1
    test_fraction: UnitFloat = 0.0
    split_by: Literal["clip", "speaker"] = "clip"
    holdout_speakers: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.val_fraction + self.test_fraction > 1.0:
            raise UsageError("val_fraction and test_fraction together exceed 1; make them smaller")

    def to_dict(self) -> dict[str, Any]:
        """Return the options of the splits as they are stored in the manifest."""
        values = {item.name: getattr(self, item.name) for item in fields(SplitOptions)}
        return values | {"holdout_speakers": sorted(self.holdout_speakers)}

    @property
    def required(self) -> list[str]:
        """The splits with a fraction above 0, in the order in which they must get clips."""
        fractions = {
            "train": 1.0 - self.val_fraction - self.test_fraction,
            "val": self.val_fraction,
            "test": self.test_fraction,
        }
        return [name for name, fraction in fractions.items() if fraction > 1e-9]


def assign_splits(
    clips: Sequence[ClipEntry], options: SplitOptions, earlier: Manifest | None = None
) -> list[ClipEntry]:
    """Return the clips with assigned splits.

    The split of a new clip (or speaker) depends on its name. If an `earlier` manifest of the corpus
    has the same options, its clips keep their splits. If a split with a fraction above 0 would be
    empty, a clip (or speaker) of the largest split is moved to it, if there are enough.
    """
    unit_of = attrgetter("speaker" if options.split_by == "speaker" else "id")
    free = [clip for clip in clips if clip.speaker not in options.holdout_speakers]
    splits = {unit_of(clip): _split_of(unit_of(clip), options) for clip in free}
    before: dict[str, str] = {}
    if earlier is not None and earlier.split_options == options.to_dict():
        before = {unit_of(clip): clip.split for clip in earlier.clips if unit_of(clip) in splits}
    splits |= before
    long = {unit_of(clip) for clip in free if clip.num_frames >= _LONG_FRAMES} or set(splits)
    _fill_empty_splits(splits, long, before, options.required)
    return [replace(clip, split=splits.get(unit_of(clip), "test")) for clip in clips]


def _fill_empty_splits(
    splits: dict[str, str], long: set[str], before: Mapping[str, str], required: Sequence[str]
) -> None:
    """Move a clip (or speaker) of `long` into each required split that has none, in place."""
    targets = required[: len(long)]
    for target in targets:
        sizes = Counter(splits[unit] for unit in long)
        if sizes[target]:
            continue
        movable = [u for u in long if sizes[splits[u]] > 1 or splits[u] not in targets]
        largest = max((splits[unit] for unit in movable), key=lambda split: (sizes[split], split))
        # Choose the unit whose draw is nearest to the boundary between the splits.
        sign = 1 if largest == "train" else -1
        chosen = min(
            (unit for unit in movable if splits[unit] == largest),
            key=lambda unit: (unit in before, sign * _draw(unit)),
        )
        splits[chosen] = target


def _split_of(name: str, options: SplitOptions) -> str:
    draw = _draw(name)
    if draw < options.val_fraction:
        return "val"
    return "test" if draw < options.val_fraction + options.test_fraction else "train"


def _draw(name: str) -> float:
    """Return a number in [0, 1) that depends only on a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
