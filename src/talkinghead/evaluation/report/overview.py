"""Overview of an evaluation: the main scores of each column, by corpus or speaker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from talkinghead.evaluation.report.results import Report
from talkinghead.evaluation.report.score_catalogue import CATALOGUE

OVERVIEW = (
    "r_own",
    "r_in_step",
    "step_frames",
    "step_error",
    "motion_ratio",
    "r_lip_shape",
    "lip_shape_error",
    "closure_rate",
    "rounding_rate",
    "lse_d",
)
"""Scores of the overview, in order."""

Row = tuple[str, str, dict[str, Any]]
"""Part ("all" for all clips), column and summary, which is an entry of `summarise`."""


def overview_rows(report: Report, content: Mapping[str, Any]) -> list[Row]:
    """Return the rows of the overview, one for each part and column with clips.

    `content` is the content of scores.json.
    """
    parts = {part: content[f"by_{report.table_by}"][part] for part in report.parts}
    tables = {**parts, "all": content[report.kind]}
    return [
        (part, column, table[column])
        for part, table in tables.items()
        for column in report.columns
        if column in table
    ]


def overview_scores(rows: list[Row]) -> list[str]:
    """Return the names of the scores of the overview that have a value in any row."""
    return [name for name in OVERVIEW if any(_mean(row, name) is not None for row in rows)]


def format_overview(report: Report, content: Mapping[str, Any]) -> str:
    """Return the overview as a text table, one line per row."""
    rows = overview_rows(report, content)
    names = overview_scores(rows)
    first = [report.table_by] if report.parts else []
    lines = [[*first, report.kind.rstrip("s"), "clips", *names]]
    for row in rows:
        part, column, summary = row
        means = (_mean(row, name) for name in names)
        cells = [
            "-" if mean is None else f"{mean:.{CATALOGUE[name].digits}f}"
            for name, mean in zip(names, means, strict=True)
        ]
        label = [part] if report.parts else []
        lines.append([*label, column, str(summary["num_clips"]), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    num_labels = len(first) + 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < num_labels else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _mean(row: Row, name: str) -> float | None:
    score = row[2]["scores"].get(name)
    return None if score is None else score["mean"]
