"""Evaluation of a checkpoint: choice of clips, report files and the audio dependence check."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.bar_clips import SPEC, BarDetector
from helpers.media_files import write_media
from helpers.small_predictor import GENERATOR

from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.data.synthetic_clips import Character, draw_face, speak
from talkinghead.errors import CorpusError, UsageError
from talkinghead.evaluation.audio_dependence import (
    AudioIndependentModelError,
    measure_audio_dependence,
    require_audio_dependence,
)
from talkinghead.evaluation.checkpoint_evaluation import (
    EvaluationOptions,
    choose_clips,
    choose_other_clip,
    evaluate,
    evaluate_video,
)
from talkinghead.evaluation.metrics.statistics import MIN_CLIPS
from talkinghead.evaluation.report.results import ClipResult
from talkinghead.evaluation.scorers import clip_scorers
from talkinghead.evaluation.scorers.clip_scorers import IdentityOptions, SyncNetworkOptions
from talkinghead.features.faces.detector import build_detector
from talkinghead.models.checkpoint import build, save_release
from talkinghead.predict.options import PredictOptions


@pytest.mark.parametrize(
    ("num_clips", "l1_ratio", "r_other", "expected"),
    [
        (MIN_CLIPS, 1.5, 0.2, True),
        (MIN_CLIPS, 1.0, 0.9, False),
        (MIN_CLIPS - 1, 1.5, 0.2, None),
        (0, 1.5, 0.2, None),
    ],
)
def test_verdict_on_audio_dependence(
    num_clips: int, l1_ratio: float, r_other: float, expected, caplog: pytest.LogCaptureFixture
) -> None:
    values = {"l1_ratio": l1_ratio, "r_own": 0.9, "r_other": r_other}
    dependence = measure_audio_dependence([ClipResult("a", "seen", {}, values)] * num_clips)
    assert dependence.to_dict()["depends_on_audio"] is expected
    assert dependence.verdict().level == {True: "good", False: "bad", None: "unknown"}[expected]
    if expected is False:
        with pytest.raises(AudioIndependentModelError, match=r"last\.ckpt does not dep") as raised:
            require_audio_dependence(dependence, "last.ckpt")
        assert "\n" not in str(raised.value)
    else:
        require_audio_dependence(dependence, "last.ckpt")
    warning = "too few clips to tell whether last.ckpt depends on its audio"
    assert (warning in caplog.text) == (expected is None)


def entries(split: str, **counts: int) -> list[ClipEntry]:
    return [
        ClipEntry(f"{speaker}/{i}", speaker, "", 75, 3.0, split, "", "")
        for speaker, count in counts.items()
        for i in range(count)
    ]


def test_chosen_clips_alternate_between_speakers() -> None:
    clips = entries("val", a=50, b=2, c=1)
    chosen = choose_clips(clips, 6)
    assert sorted(c.speaker for c in chosen) == ["a", "a", "a", "b", "b", "c"]
    assert chosen == choose_clips(clips[::-1], 6)
    assert len(choose_clips(clips, None)) == 53


def test_other_clip_prefers_same_speaker_then_same_split() -> None:
    test, clips = entries("test", d=1), entries("val", a=3, b=1)
    manifest = Manifest(SPEC, "litert", "1", (*clips, *test))
    others = [choose_other_clip(clip, manifest) for clip in (*clips, *test)]
    assert [other and other.id for other in others] == ["a/1", "a/2", "a/0", "a/0", "a/0"]
    assert choose_other_clip(test[0], Manifest(SPEC, "litert", "1", tuple(test))) is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of an untrained generator, which copies the reference."""
    meta = {"generator": GENERATOR, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "-"}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_release(path, "generator", build("generator", GENERATOR, SPEC), meta)
    return path


@pytest.fixture(autouse=True)
def bar_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_scorers, "build_detector", lambda name: BarDetector())


def options(**values: Any) -> EvaluationOptions:
    quick = {"max_frames": 8, "num_strips": 0, "lpips": False, "sync": SyncNetworkOptions(None)}
    return EvaluationOptions(**{**quick, **values})


def test_evaluate_writes_a_report(bar_corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    chosen = options(
        generation="model", max_frames=10, max_clips=1, num_strips=1, sync=SyncNetworkOptions()
    )
    report = evaluate(checkpoint, bar_corpus, tmp_path, chosen)
    assert report == json.loads((tmp_path / "scores.json").read_text())
    assert report["audio_dependence"]["depends_on_audio"] is None  # There are two clips.
    page = (tmp_path / "report.html").read_text()
    assert "Too few clips to tell" in page
    seen, unseen = report["groups"]["seen"], report["groups"]["unseen"]
    assert (seen["num_clips"], seen["speakers"]) == (1, ["ann"])
    assert (unseen["num_clips"], unseen["speakers"]) == (1, ["ben"])
    interval = seen["scores"]["l1_own"]
    assert interval["low"] <= interval["mean"] <= interval["high"]
    assert interval["mean"] == pytest.approx(seen["scores"]["l1_reference"]["mean"], rel=0.5)
    for name in ("openness_silence", "lips_l1_ratio_speech", "lse_c", "real_lse_d"):
        assert set(seen["scores"][name]) == {"mean", "low", "high", "num_clips"}
        assert f"<code>{name}</code>" in page
    with (tmp_path / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [clip["id"] for clip in report["clips"]]
    assert {row["id"]: row["other_same_speaker"] for row in rows}["ben/c3"] == "False"
    assert float(rows[0]["l1_own"]) == pytest.approx(report["clips"][0]["l1_own"])
    strips = sorted((tmp_path / "strips").iterdir())
    assert [path.name.split("_")[0] for path in strips] == ["seen", "unseen"]
    assert cv2.imread(str(strips[0])).shape == (4 * 160, 10 * 176, 3)


@pytest.mark.slow
def test_several_corpora_have_a_separate_table(
    bar_corpus: Path, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    second = tmp_path / "second"
    shutil.copytree(bar_corpus, second)
    chosen = options(generation="model", require_audio_dependence=False, max_clips=1)
    report = evaluate(checkpoint, [bar_corpus, second], tmp_path / "scores", chosen)
    names = sorted([bar_corpus.name, "second"])
    assert list(report["by_corpus"]) == names
    for part in names:
        assert {c: s["num_clips"] for c, s in report["by_corpus"][part].items()} == {
            "seen": 1,
            "unseen": 1,
        }
    assert report["groups"]["seen"]["num_clips"] == 2
    assert [clip["corpus"] for clip in report["clips"]] == [bar_corpus.name] * 2 + ["second"] * 2
    page = (tmp_path / "scores/report.html").read_text()
    assert "<h2>By corpus</h2>" in page
    assert re.search("second, .*unseen", page)
    table = next(text for text in caplog.messages if text.startswith("corpus"))
    assert [line.split()[:3] for line in table.splitlines()[1:]] == [
        *([part, group, "1"] for part in names for group in ("seen", "unseen")),
        *(["all", group, "2"] for group in ("seen", "unseen")),
    ]
    report = evaluate(checkpoint, second, tmp_path / "by", options(table_by="speaker"), None)
    assert list(report["by_speaker"]) == ["ann", "ben", "cat"]
    assert list(report["by_speaker"]["ben"]) == ["unseen"]


@pytest.mark.slow
def test_moving_head_is_scored_in_the_aligned_face(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_scorers, "build_detector", build_detector)
    character = Character.of(0)
    samples, opening = speak(character, Fraction(6, 5), 16_000, np.random.default_rng(0))
    frames = []
    for number, value in enumerate(opening[320::640]):
        face = draw_face(character, float(value), 256)
        turn = cv2.getRotationMatrix2D((128, 128), 8 * np.sin(number / 8), 0.9)
        turn[:, 2] += 12 * np.cos(number / 9), 8 * np.sin(number / 7)
        frames.append(cv2.warpAffine(face, turn, (256, 256), borderMode=cv2.BORDER_REPLICATE))
    (tmp_path / "videos/ann").mkdir(parents=True)
    write_media(tmp_path / "videos/ann/moving.mp4", frames, audio=samples)
    scores = {}
    for mode in ("video", "still"):
        chosen = options(mode=mode, max_frames=None)
        inputs = checkpoint, tmp_path / "videos", tmp_path / mode
        report = evaluate_video(*inputs, chosen, lip_prior=None)
        scores[mode] = {n: s["mean"] for n, s in report["groups"]["unseen"]["scores"].items()}
    for values in scores.values():
        assert values["found"] == 1
        assert values["r_ceiling"] > 0.9  # The motion of the head does not change the opening.
    # The frames around the mouth are the current ones.
    assert scores["video"]["l1_own"] < scores["still"]["l1_own"]


def test_product_generation_is_default(bar_corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    report = evaluate(checkpoint, bar_corpus, tmp_path, options(max_clips=1), lip_prior=None)
    assert report["options"]["generation"] == "product"
    assert report["options"]["articulation"] == PredictOptions().articulation
    scores = report["groups"]["seen"]["scores"]
    assert scores["l1_own"] == scores["shown_l1_own"]  # The composited frames are scored.
    assert not (tmp_path / "strips").exists()


@pytest.mark.slow
def test_audio_independent_checkpoint_fails_after_the_report(
    bar_corpus: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talkinghead.evaluation.metrics.statistics.MIN_CLIPS", 2)
    raw = options(generation="model")
    with pytest.raises(AudioIndependentModelError):
        evaluate(checkpoint, bar_corpus, tmp_path, raw)
    assert "The model does not depend on its audio." in (tmp_path / "report.html").read_text()
    evaluate(checkpoint, bar_corpus, tmp_path, replace(raw, require_audio_dependence=False))


def test_unusable_corpora_are_rejected(bar_corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(bar_corpus)
    Manifest(SPEC, "litert", "1", tuple(manifest.split("train"))).save(tmp_path / "bare")
    replace(manifest, spec=replace(SPEC, fmax=8000.0)).save(tmp_path / "foreign")
    for name, message in (("bare", "no clip in val, test"), ("foreign", "fmax")):
        with pytest.raises(CorpusError, match=message):
            evaluate(checkpoint, tmp_path / name, tmp_path)
    for corpora in ([], [bar_corpus, bar_corpus]):
        with pytest.raises(UsageError, match="one or several folders of different names"):
            evaluate(checkpoint, corpora, tmp_path)


def test_invalid_options_are_rejected() -> None:
    splits = {"splits": ["dev"]}, {"splits": []}, {"table_by": "colour"}
    numbers = {"max_clips": 0}, {"articulation": 4}, {"reference_frame": -1}, {"num_strips": -1}
    for values in (*splits, *numbers):
        with pytest.raises(UsageError, match=next(iter(values))):
            EvaluationOptions(**values)
    with pytest.raises(UsageError, match=r"identity\.scale"):
        IdentityOptions(scale=0)
