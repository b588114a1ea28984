"""HTML report: one self-contained page without scripts or external files."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import talkinghead
from talkinghead.evaluation.report.clip_visuals import ClipVisuals
from talkinghead.evaluation.report.overview import overview_rows, overview_scores
from talkinghead.evaluation.report.results import ClipResult, Report
from talkinghead.evaluation.report.score_catalogue import CATALOGUE, ScoreInfo
from talkinghead.types import FloatArray

TEMPLATE = "report.html.j2"
# Palette of Okabe and Ito, which colour-blind readers can distinguish. Real clips have the text
# colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_ARROWS = {"higher": "↑", "lower": "↓", "one": "→ 1", "zero": "→ 0", "": ""}
_WIDTH, _HEIGHT, _MARGIN_LEFT, _MARGIN_BOTTOM, _MARGIN_TOP = 960, 190, 44, 26, 8


@dataclass(frozen=True)
class Plot:
    """SVG curves: `paths` are (name, colour, path data), `bands` are pauses as (x, width)."""

    width: int
    height: int
    left: int
    bottom: int
    top: int
    paths: list[tuple[str, str, str]]
    bands: list[tuple[float, float]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def render_page(
    report: Report,
    content: Mapping[str, Any],
    visuals: Sequence[tuple[str, ClipResult]],
    winners: Mapping[str, str],
) -> str:
    """Return the HTML page.

    `content` is that of scores.json, `visuals` are the clips to show, each with a rank such as
    "best 1", and `winners` the significantly best system of each score.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    systems = [column for column in report.columns if column != report.reference_column]
    colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(systems)}
    colours |= {name: "currentColor" for name in report.columns if name not in colours}
    facts = {key: value for key, value in report.header.items() if isinstance(value, str)}
    if generated := report.header.get("generated"):
        facts["generated"] = ", ".join(f"{name}: {path}" for name, path in generated.items())
    return environment.get_template(TEMPLATE).render(
        version=talkinghead.__version__,
        report=report,
        facts=facts,
        columns=[(name, colours[name], content[report.kind][name]) for name in report.columns],
        sections=_sections(report, content[report.kind], winners),
        parts=_parts(report, content, colours) if report.parts else None,
        notes=report.header.get("left_out", ()),
        skipped=report.header.get("skipped", ()),
        visuals=[_show(rank, clip, report.fps, colours) for rank, clip in visuals],
    )


def _sections(
    report: Report, summary: Mapping[str, Any], winners: Mapping[str, str]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the table rows of all scores that have a value, grouped by section.

    Scores of composited frames ("shown_") that repeat those of the generated frames are left out.
    """
    rows: list[dict[str, Any]] = []
    for name, info in CATALOGUE.items():
        found = {column: summary[column]["scores"].get(name) for column in report.columns}
        plain = name.removeprefix("shown_")
        repeats = plain != name and all(
            found[column] == summary[column]["scores"].get(plain) for column in report.columns
        )
        if any(found.values()) and not repeats:
            cells = [_cell(found[c], info, winners.get(name) == c) for c in report.columns]
            arrow = _ARROWS[info.better]
            rows.append({"name": name, "info": info, "arrow": arrow, "cells": cells})
    return [(key, list(part)) for key, part in groupby(rows, lambda row: row["info"].section)]


def _parts(
    report: Report, content: Mapping[str, Any], colours: Mapping[str, str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the score names and the rows of the table by corpus or speaker."""
    rows = overview_rows(report, content)
    names = overview_scores(rows)
    shown = [
        {
            "part": part,
            "column": column,
            "colour": colours[column],
            "num_clips": summary["num_clips"],
            "cells": [_cell(summary["scores"].get(n), CATALOGUE[n], False) for n in names],
        }
        for part, column, summary in rows
    ]
    return names, shown


def _cell(interval: Mapping[str, Any] | None, info: ScoreInfo, is_best: bool) -> dict[str, Any]:
    if interval is None or interval["mean"] is None:
        return {"mean": "\N{EM DASH}", "interval": "", "is_best": False}
    mean, low, high = (interval[key] for key in ("mean", "low", "high"))
    is_known = low is not None and interval["num_clips"] > 1
    between = "" if not is_known else f"{_number(low, info)} … {_number(high, info)}"
    return {"mean": _number(mean, info), "interval": between, "is_best": is_best}


def _number(value: float, info: ScoreInfo) -> str:
    text = f"{value:.{info.digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("-")


def _show(rank: str, clip: ClipResult, fps: Fraction, colours: Mapping[str, str]) -> dict[str, Any]:
    """Return the template variables of one clip."""
    visuals = clip.visuals
    assert visuals is not None
    scores = [
        (CATALOGUE[key].label, _number(clip.values[key], CATALOGUE[key]))
        for key in ("r_own", "r_own_speech", "lmd", "psnr", "lse_d", "sync_offset")
        if key in clip.values and not math.isnan(clip.values[key])
    ]
    png = cv2.imencode(".png", visuals.strip[..., ::-1])[1].tobytes()
    return {
        "title": rank,
        "kind": rank.split()[0],
        "clip": clip.clip,
        "column": clip.column,
        "colour": colours[clip.column],
        "scores": scores,
        "strip": _data_uri("image/png", png),
        "poster": _data_uri("image/jpeg", visuals.poster),
        "video": _data_uri("video/mp4", visuals.video),
        "plot": make_plot(visuals, fps, colours[clip.column]),
    }


def make_plot(visuals: ClipVisuals, fps: Fraction, colour: str) -> Plot:
    """Return the opening curves of a clip; the first (real) curve has the text colour."""
    num_frames = max(len(curve) for curve in visuals.curves.values())
    tops = [np.nanmax(c) for c in visuals.curves.values() if np.isfinite(c).any()]
    top = max([0.05, *map(float, tops)]) * 1.05
    step_x = (_WIDTH - _MARGIN_LEFT) / max(1, num_frames - 1)
    scale_y = (_HEIGHT - _MARGIN_BOTTOM - _MARGIN_TOP) / top

    def x_of(frame: float) -> float:
        return round(_MARGIN_LEFT + frame * step_x, 1)

    def y_of(value: float) -> float:
        return round(_HEIGHT - _MARGIN_BOTTOM - value * scale_y, 1)

    def draw(curve: FloatArray) -> str:
        parts, pen = [], "M"
        for frame, value in enumerate(curve):
            if math.isnan(value):
                pen = "M"
                continue
            parts.append(f"{pen}{x_of(frame)} {y_of(float(value))}")
            pen = "L"
        return " ".join(parts)

    colours = ("currentColor", colour, *COLOURS[2:])
    paths = [
        (name, colours[n % len(colours)], draw(curve))
        for n, (name, curve) in enumerate(visuals.curves.items())
    ]
    duration_s = int((num_frames - 1) / fps)
    return Plot(
        *(_WIDTH, _HEIGHT, _MARGIN_LEFT, _HEIGHT - _MARGIN_BOTTOM, _MARGIN_TOP),
        paths,
        [] if visuals.speech is None else _bands(~visuals.speech, x_of),
        [(x_of(float(s * fps)), f"{s} s") for s in range(duration_s + 1)],
        [(y_of(v), f"{v:.2f}") for v in (0.0, top / 2, top)],
    )


def _bands(quiet: Any, x_of: Any) -> list[tuple[float, float]]:
    """Return the intervals without speech as (x, width)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    last = len(quiet) - 1
    pairs = zip(edges[::2], edges[1::2], strict=True)
    spans = [(x_of(int(start)), x_of(min(int(stop), last))) for start, stop in pairs]
    return [(start, round(stop - start, 1)) for start, stop in spans]


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
