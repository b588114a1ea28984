"""HTML report: self-contained, and highlights significant differences only."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkinghead.evaluation.report.clip_visuals import ClipVisuals, make_clip_visuals
from talkinghead.evaluation.report.page import make_plot
from talkinghead.evaluation.report.results import RANK_BY, ClipResult, Report, Verdict
from talkinghead.evaluation.report.score_catalogue import CATALOGUE
from talkinghead.evaluation.report.summary import drop_unused_visuals, winners, write_report
from talkinghead.media.reader import probe
from talkinghead.types import AVSpec, FloatArray

SPEC = AVSpec()
DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


def data_uri(page: str, kind: str) -> bytes:
    """Return the content of the only data URI of a type."""
    (content,) = re.findall(rf'="data:{kind};base64,([^"]*)"', page)
    return base64.b64decode(content)


def scored(clip: str, column: str, value: float, *, shown: bool = False) -> ClipResult:
    values = {"r_own_speech": value, "r_own": value, "lmd": 0.1 - value / 20, "jitter": 1.0}
    if not shown:
        return ClipResult(clip, column, {}, values)
    wave: FloatArray = np.linspace(0, 0.2, 30, dtype=np.float32)
    broken = np.where(np.arange(30) == 10, np.nan, wave / 2).astype(np.float32)
    faces = {n: np.full((30, 256, 256, 3), v, np.uint8) for n, v in (("real", 90), (column, 160))}
    curves, samples = {"real": wave, column: broken}, np.zeros(30 * 640, np.float32)
    visuals = make_clip_visuals(faces, faces, curves, np.arange(30) > 12, samples, SPEC)
    return ClipResult(clip, column, {}, values, visuals)


@pytest.fixture(scope="module")
def clips() -> list[ClipResult]:
    good = [scored(f"c{i}", "good", 0.7 + 0.02 * i, shown=i < 1) for i in range(12)]
    bad = [scored(f"c{i}", "<b>bad", 0.3 + 0.02 * i) for i in range(12)]
    return [*good, *bad]


def test_page_is_self_contained(clips: list[ClipResult], tmp_path: Path) -> None:
    header = {
        "reference": "real & true",
        "generated": {"good": "g"},
        "left_out": ["FID is left out"],
        "skipped": [],
    }
    write_report(Report("systems", header, clips, Fraction(25)), tmp_path, 12)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|iframe|object)|https?://|@import|url\(|<b>bad", page)
    for expected in ("real &amp; true", "good: g", "FID is left out", ">best 12<", 'best">0.81'):
        assert expected in page
    (tmp_path / "clip.mp4").write_bytes(data_uri(page, "video/mp4"))
    info = probe(tmp_path / "clip.mp4")
    assert (info.width, info.height, info.fps, info.has_audio) == (512, 256, 25, True)
    assert float(info.duration_s) == pytest.approx(30 / 25, abs=0.05)
    for kind, shape in (("image/jpeg", (256, 512, 3)), ("image/png", (2 * 160, 10 * 176, 3))):
        data = np.frombuffer(data_uri(page, kind), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == shape


def test_insignificant_differences_have_no_winner(clips: list[ClipResult]) -> None:
    best = winners(clips, ["good", "<b>bad"])
    # `jitter` has no winner.
    assert best == {"r_own": "good", "r_own_speech": "good", "lmd": "good"}
    few = [clip for clip in clips if clip.clip in ("c0", "c1", "c2")]
    assert winners(few, ["good", "<b>bad"]) == {}
    # System "a" is better in the mean, but worse in half of the clips.
    lead = {"a": (0.3, -0.2), "b": (0.0, 0.0)}
    alike = [scored(f"c{i}", s, 0.5 + lead[s][i % 2]) for i in range(20) for s in "ab"]
    assert winners(alike, ["a", "b"]) == winners(alike, ["a"]) == {}


def test_badness_is_smallest_at_the_best_score() -> None:
    values: FloatArray = np.array([-1.0, 0.0, 1.0, 2.0])
    for score, best in (("r_own", 2), ("lmd", -1), ("motion_ratio", 1), ("sync_offset", 0)):
        assert values[CATALOGUE[score].badness(values).argmin()] == best, score


def test_groups_are_not_compared_and_verdict_is_shown(
    clips: list[ClipResult], tmp_path: Path
) -> None:
    verdict = Verdict("It fails.", "Why.", "bad")
    report = Report("groups", {}, clips, Fraction(25), verdict=verdict)
    assert "differences" not in write_report(report, tmp_path, 0)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<p class="verdict bad"><strong>It fails.</strong> Why.' in text
    assert 'class="best"' not in text


def test_page_leaves_out_repeated_scores_and_the_interval_of_one_clip(tmp_path: Path) -> None:
    values = {"l1_own": 0.25, "shown_l1_own": 0.25, "l1_other": 0.5, "shown_l1_other": 0.75}
    clip = ClipResult("c0", "seen", {}, values)
    write_report(Report("groups", {"lip_prior": "none"}, [clip], Fraction(25)), tmp_path, 0)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = re.findall(r"<code>(\w+)</code>", text)
    assert rows == ["l1_own", "l1_other", "shown_l1_other"]
    assert "<dt>lip prior</dt>" in text
    assert "0.2500" in text
    assert "0.2500 …" not in text


def test_curves_are_scaled_and_have_gaps(clips: list[ClipResult]) -> None:
    assert clips[0].visuals is not None
    plot = make_plot(clips[0].visuals, Fraction(25), "#123456")
    (_, _, real), (name, colour, ours) = plot.paths
    assert (name, colour) == ("good", "#123456")
    assert (real.count("M"), ours.count("M")) == (1, 2)
    numbers = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", real), dtype=float)
    assert numbers[0].tolist() == [plot.left, plot.bottom]
    assert numbers[-1][0] == pytest.approx(plot.width)
    assert numbers[:, 1].min() >= plot.top
    assert plot.bands == [(plot.left, pytest.approx(13 / 29 * (plot.width - plot.left), abs=0.2))]
    assert [text for _, text in plot.x_ticks] == ["0 s", "1 s"]


def test_only_visuals_that_the_page_shows_are_kept(clips: list[ClipResult]) -> None:
    scores = (0.1, 0.9, float("nan"), 0.5, 0.4)
    rows = [replace(clips[0], clip=f"{n}", values={RANK_BY: v}) for n, v in enumerate(scores)]
    left = drop_unused_visuals(rows, 1)
    assert [clip.visuals is not None for clip in left] == [False, True, True, False, False]


def test_documentation_defines_every_score() -> None:
    text = DOCS.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    # Scores with these prefixes are documented by the prefix.
    plain = {re.sub(r"^(real_|syncnet_|lips_|shown_)+", "", name) for name in CATALOGUE}
    assert plain <= named


def test_plot_of_a_clip_without_a_known_opening_has_no_curve() -> None:
    unknown = np.full(5, np.nan, np.float32)
    strip = np.zeros((2, 2, 3), np.uint8)
    visuals = ClipVisuals(strip, b"", b"", {"real": unknown, "own": unknown}, None)
    plot = make_plot(visuals, Fraction(25), "red")
    assert [path for _, _, path in plot.paths] == ["", ""]
    assert plot.y_ticks[-1][1] == "0.05"
