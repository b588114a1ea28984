"""HTML report: self-contained, and highlights significant differences only."""

from __future__ import annotations

import base64
import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkinghead.evaluation.report.clip_visuals import make_clip_visuals
from talkinghead.evaluation.report.page import make_plot
from talkinghead.evaluation.report.results import ClipResult, Report, Verdict
from talkinghead.evaluation.report.score_catalogue import CATALOGUE
from talkinghead.evaluation.report.summary import winners, write_report
from talkinghead.media.reader import probe
from talkinghead.types import AVSpec, FloatArray, UInt8Array

SPEC = AVSpec()
DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


class Page(HTMLParser):
    """Collects tags with their attributes, and unclosed tags."""

    VOID = frozenset({"meta", "img", "br", "line", "rect", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def sources(self, wanted: str, attribute: str = "src") -> list[str]:
        return [str(attributes[attribute]) for tag, attributes in self.tags if tag == wanted]


def faces(level: int) -> UInt8Array:
    return np.full((30, 256, 256, 3), level, np.uint8)


def scored(clip: str, column: str, value: float, *, shown: bool = False) -> ClipResult:
    values = {"r_own_speech": value, "r_own": value, "lmd": 0.1 - value / 20, "jitter": 1.0}
    if not shown:
        return ClipResult(clip, column, {}, values)
    wave: FloatArray = np.linspace(0, 0.2, 30, dtype=np.float32)
    broken = np.where(np.arange(30) == 10, np.nan, wave / 2).astype(np.float32)
    versions = {"real": faces(90), column: faces(160)}
    speech = np.arange(30) > 12
    samples = np.zeros(30 * 640, np.float32)
    visuals = make_clip_visuals(
        versions, versions, {"real": wave, column: broken}, speech, samples, SPEC
    )
    return ClipResult(clip, column, {}, values, visuals)


@pytest.fixture
def clips() -> list[ClipResult]:
    good = [scored(f"c{i}", "good", 0.7 + 0.02 * i, shown=i < 1) for i in range(8)]
    bad = [scored(f"c{i}", "<b>bad", 0.3 + 0.02 * i) for i in range(8)]
    return [*good, *bad]


def test_page_is_self_contained(clips: list[ClipResult], tmp_path: Path) -> None:
    header = {"reference": "real & true", "left_out": ["FID is left out"], "skipped": []}
    write_report(Report("systems", header, clips, Fraction(25)), tmp_path, 8)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert not re.search(r"https?://|@import|url\(", text)
    assert "real &amp; true" in text
    assert "<b>bad" not in text
    assert "FID is left out" in text
    (video,), (image,) = page.sources("video"), page.sources("img")
    (tmp_path / "clip.mp4").write_bytes(
        base64.b64decode(video.removeprefix("data:video/mp4;base64,"))
    )
    info = probe(tmp_path / "clip.mp4")
    assert (info.width, info.height, info.fps) == (512, 256, 25)
    assert info.has_audio
    assert float(info.duration_s) == pytest.approx(30 / 25, abs=0.05)
    (poster,) = page.sources("video", "poster")
    jpeg = base64.b64decode(poster.removeprefix("data:image/jpeg;base64,"))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (256, 512, 3)
    png = base64.b64decode(image.removeprefix("data:image/png;base64,"))
    strip = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert strip.shape == (2 * 160, 10 * 176, 3)
    assert 'class="best">0.77' in text


def test_insignificant_differences_have_no_winner(clips: list[ClipResult]) -> None:
    best = winners(clips, ["good", "<b>bad"])
    assert best == {"r_own": "good", "r_own_speech": "good", "lmd": "good"}  # Not jitter.
    few = [clip for clip in clips if clip.clip in ("c0", "c1", "c2")]
    assert winners(few, ["good", "<b>bad"]) == {}
    lead = {
        "a": (0.3, -0.2),
        "b": (0.0, 0.0),
    }  # Better in the mean, but worse in half of the clips.
    alike = [scored(f"c{i}", s, 0.5 + lead[s][i % 2]) for i in range(20) for s in "ab"]
    assert winners(alike, ["a", "b"]) == {}
    assert winners(alike, ["a"]) == {}


def test_badness_follows_the_direction_of_the_score() -> None:
    values: FloatArray = np.array([0.5, 1.0, 2.0], np.float32)
    assert CATALOGUE["r_own"].badness(values).argmin() == 2
    assert CATALOGUE["lmd"].badness(values).argmin() == 0
    assert CATALOGUE["motion_ratio"].badness(values).argmin() == 1
    assert CATALOGUE["sync_offset"].badness(values - 1).argmin() == 1


def test_groups_are_not_compared_and_verdict_is_shown(
    clips: list[ClipResult], tmp_path: Path
) -> None:
    verdict = Verdict("It fails.", "Why.", "bad")
    report = Report("groups", {}, clips, Fraction(25), verdict=verdict)
    content = write_report(report, tmp_path, 0)
    assert "differences" not in content
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<p class="verdict bad"><strong>It fails.</strong> Why.' in text
    assert 'class="best"' not in text


def test_curves_are_to_scale_with_gaps() -> None:
    visuals = scored("c", "ours", 0.5, shown=True).visuals
    assert visuals is not None
    plot = make_plot(visuals, Fraction(25), "#123456")
    (_, _, real), (name, colour, ours) = plot.paths
    assert (name, colour) == ("ours", "#123456")
    assert real.count("M") == 1
    assert ours.count("M") == 2
    numbers = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", real), dtype=float)
    assert numbers[0].tolist() == [plot.left, plot.bottom]
    assert numbers[-1][0] == pytest.approx(plot.width)
    assert numbers[:, 1].min() >= plot.top
    assert plot.bands == [(plot.left, pytest.approx(13 / 29 * (plot.width - plot.left), abs=0.2))]
    assert [text for _, text in plot.x_ticks] == ["0 s", "1 s"]


def test_documentation_defines_every_score() -> None:
    text = DOCS.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    # Scores with these prefixes are documented by the prefix.
    plain = {re.sub(r"^(real_|syncnet_|lips_|shown_)+", "", name) for name in CATALOGUE}
    assert plain <= named
