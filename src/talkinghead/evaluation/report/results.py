"""Results of an evaluation: the scores of each clip, and the report on all clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from talkinghead.evaluation.report.clip_visuals import ClipVisuals
from talkinghead.types import FloatArray

TableBy = Literal["corpus", "speaker"]
RANK_BY = "r_own_speech"
"""The score that ranks the clips from best to worst."""


@dataclass(frozen=True)
class ClipResult:
    """Scores of one clip in one column of the report.

    Attributes:
        clip: the clip's ID.
        column: a group of speakers or a system.
        facts: values of further columns of clips.csv.
        values: scores by name (see docs/metrics.md).
        visuals: images and curves for the page.
        features: Inception features of generated and real frames for FID, float32 [n, D] each.
    """

    clip: str
    column: str
    facts: dict[str, Any]
    values: dict[str, float]
    visuals: ClipVisuals | None = None
    features: tuple[FloatArray, FloatArray] | None = None


@dataclass(frozen=True)
class Verdict:
    """A statement at the top of the page; `level` selects its colour."""

    title: str
    text: str
    level: Literal["good", "bad", "unknown"]


@dataclass(frozen=True)
class Report:
    """Content of the report that `write_report` writes.

    Attributes:
        kind: kind of the columns, "groups" or "systems". Systems have the same clips, so they are
            compared clip by clip.
        header: inputs and options of the evaluation, the first entries of scores.json.
        clips: results in the order of the tables.
        fps: frame rate of the visuals.
        reference_column: the column of the real videos.
        verdict: statement at the top of the page.
        table_by: the fact of the clips by which the second table is divided.
        columns: names of the columns, in order.
        parts: values of this fact, in order; empty if there are fewer than two.
    """

    kind: Literal["groups", "systems"]
    header: Mapping[str, Any]
    clips: Sequence[ClipResult]
    fps: Fraction
    reference_column: str | None = None
    verdict: Verdict | None = None
    table_by: TableBy = "corpus"
    columns: list[str] = field(init=False)
    parts: list[str] = field(init=False)

    def __post_init__(self) -> None:
        columns = list(dict.fromkeys(clip.column for clip in self.clips))
        ordered = columns if self.kind == "systems" else sorted(columns)
        object.__setattr__(self, "columns", ordered)
        found = {clip.facts.get(self.table_by) for clip in self.clips} - {None}
        object.__setattr__(self, "parts", sorted(found) if len(found) > 1 else [])

    @property
    def systems(self) -> list[str]:
        """Columns that are compared clip by clip; empty if the columns are groups."""
        if self.kind != "systems":
            return []
        return [column for column in self.columns if column != self.reference_column]
