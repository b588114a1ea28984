"""Evaluation of a checkpoint: choice of clips, report files and the audio dependence check."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.bar_clips import SMALL_GENERATOR, SPEC, BarDetector

from talkinghead.data.manifest import ClipEntry, Manifest
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
)
from talkinghead.evaluation.metrics.statistics import MIN_CLIPS
from talkinghead.evaluation.report.clip_visuals import ClipVisuals
from talkinghead.evaluation.report.results import ClipResult
from talkinghead.evaluation.report.summary import drop_unused_visuals
from talkinghead.evaluation.scorers import clip_scorers
from talkinghead.evaluation.scorers.clip_scorers import (
    IdentityOptions,
    ScorerOptions,
    SyncNetworkOptions,
)
from talkinghead.models.checkpoint import build, save_release
from talkinghead.predict.options import PredictOptions

NO_EXPERT = SyncNetworkOptions(checkpoint=None)


def dependence_of(num_clips: int, l1_ratio: float, r_other: float):
    values = {"l1_ratio": l1_ratio, "r_own": 0.9, "r_other": r_other}
    return measure_audio_dependence([ClipResult("a", "seen", {}, values)] * num_clips)


def test_model_that_ignores_the_audio_is_rejected() -> None:
    dependent = dependence_of(MIN_CLIPS, l1_ratio=1.5, r_other=0.2)
    assert dependent.depends_on_audio is True
    require_audio_dependence(dependent, "last.ckpt")
    independent = dependence_of(MIN_CLIPS, l1_ratio=1.0, r_other=0.9)
    assert independent.depends_on_audio is False
    with pytest.raises(AudioIndependentModelError, match=r"last\.ckpt does not depend") as raised:
        require_audio_dependence(independent, "last.ckpt")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("num_clips", [0, 1, MIN_CLIPS - 1])
def test_too_few_clips_give_no_verdict(num_clips: int, caplog: pytest.LogCaptureFixture) -> None:
    dependence = dependence_of(num_clips, l1_ratio=1.5, r_other=0.2)
    assert dependence.depends_on_audio is None
    assert dependence.to_dict()["depends_on_audio"] is None
    assert dependence.verdict().level == "unknown"
    require_audio_dependence(dependence, "last.ckpt")
    assert "too few clips to tell whether last.ckpt depends on its audio" in caplog.text


def entries(*pairs: tuple[str, int]) -> list[ClipEntry]:
    return [
        ClipEntry(f"{speaker}/{i}", speaker, "", 75, 3.0, "val", "", "")
        for speaker, count in pairs
        for i in range(count)
    ]


def test_chosen_clips_alternate_between_speakers() -> None:
    clips = entries(("a", 50), ("b", 2), ("c", 1))
    chosen = choose_clips(clips, 6)
    assert sorted(c.speaker for c in chosen) == ["a", "a", "a", "b", "b", "c"]
    assert chosen == choose_clips(clips[::-1], 6)
    assert len(choose_clips(clips, None)) == 53


def test_other_clip_is_of_the_same_speaker_or_split_if_possible() -> None:
    clips = entries(("a", 3), ("b", 1))
    test = [replace(clip, id=f"t/{clip.id}", split="test") for clip in entries(("d", 1))]
    manifest = Manifest(SPEC, "litert", "1", (*clips, *test))
    others = {clip.id: choose_other_clip(clip, manifest) for clip in (*clips, *test)}
    assert all(other is not None and other.id != name for name, other in others.items())
    assert others[clips[0].id].speaker == "a"  # type: ignore[union-attr]
    assert others[clips[3].id].split == "val"  # type: ignore[union-attr]
    assert choose_other_clip(test[0], Manifest(SPEC, "litert", "1", tuple(test))) is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator that copies the reference."""
    meta = {
        "generator": SMALL_GENERATOR,
        "av": SPEC.to_dict(),
        "license": "MIT",
        "trained_on": "nothing",
    }
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = build("generator", SMALL_GENERATOR, SPEC)
    torch.nn.init.zeros_(model.decoder.head.weight)
    save_release(path, "generator", model, meta)
    return path


@pytest.fixture(autouse=True)
def bar_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_scorers, "build_detector", lambda name: BarDetector())


def test_evaluate_writes_a_report(bar_corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = EvaluationOptions(
        max_frames=12,
        num_strips=1,
        num_threads=torch.get_num_threads(),
        lpips=False,
        sync=NO_EXPERT,
        generation="model",
    )
    report = evaluate(checkpoint, bar_corpus, tmp_path, options)
    assert report == json.loads((tmp_path / "scores.json").read_text())
    assert report["audio_dependence"]["depends_on_audio"] is None  # There are four clips.
    page = (tmp_path / "report.html").read_text()
    assert "Too few clips to tell" in page
    seen, unseen = report["groups"]["seen"], report["groups"]["unseen"]
    assert (seen["num_clips"], seen["speakers"]) == (2, ["ann"])
    assert (unseen["num_clips"], unseen["speakers"]) == (2, ["ben", "cat"])
    interval = seen["scores"]["l1_own"]
    assert interval["low"] <= interval["mean"] <= interval["high"]
    assert interval["mean"] == pytest.approx(seen["scores"]["l1_reference"]["mean"], rel=0.5)
    for name in ("openness_silence", "l1_ratio_speech", "lips_l1_ratio_speech"):
        assert set(seen["scores"][name]) == {"mean", "low", "high", "num_clips"}
        assert f"<code>{name}</code>" in page
    with (tmp_path / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [clip["id"] for clip in report["clips"]]
    assert {row["id"]: row["other_same_speaker"] for row in rows}["ben/c3"] == "False"
    assert float(rows[0]["l1_own"]) == pytest.approx(report["clips"][0]["l1_own"])
    strips = sorted((tmp_path / "strips").iterdir())
    assert [path.name.split("_")[0] for path in strips] == ["seen", "seen", "unseen", "unseen"]
    assert cv2.imread(str(strips[0])).shape == (4 * 160, 10 * 176, 3)


def test_product_is_the_default(bar_corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = EvaluationOptions(
        max_frames=8, max_clips=1, num_strips=0, lpips=False, sync=NO_EXPERT
    )
    report = evaluate(checkpoint, bar_corpus, tmp_path, options, lip_prior=None)
    assert report["options"]["generation"] == "product"
    assert report["options"]["articulation"] == PredictOptions().articulation
    scores = report["groups"]["seen"]["scores"]
    assert scores["l1_own"] == scores["shown_l1_own"]  # The composited frames are scored.
    assert not (tmp_path / "strips").exists()


def test_audio_independent_checkpoint_fails_after_the_report(
    bar_corpus: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talkinghead.evaluation.metrics.statistics.MIN_CLIPS", 2)
    options = EvaluationOptions(
        max_frames=8, num_strips=0, lpips=False, sync=NO_EXPERT, generation="model"
    )
    with pytest.raises(AudioIndependentModelError):
        evaluate(checkpoint, bar_corpus, tmp_path, options)
    assert "The model does not depend on its audio." in (tmp_path / "report.html").read_text()
    evaluate(checkpoint, bar_corpus, tmp_path, replace(options, require_audio_dependence=False))


def test_unusable_corpora_are_rejected(bar_corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(bar_corpus)
    Manifest(SPEC, "litert", "1", tuple(manifest.split("train"))).save(tmp_path / "bare")
    with pytest.raises(CorpusError, match="no clip in val, test"):
        evaluate(checkpoint, tmp_path / "bare", tmp_path)
    replace(manifest, spec=replace(SPEC, fmax=8000.0)).save(tmp_path / "foreign")
    with pytest.raises(CorpusError, match="fmax"):
        evaluate(checkpoint, tmp_path / "foreign", tmp_path)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (EvaluationOptions, {"splits": ["dev"]}),
        (EvaluationOptions, {"splits": []}),
        (EvaluationOptions, {"max_clips": 0}),
        (EvaluationOptions, {"articulation": 4}),
        (EvaluationOptions, {"reference_frame": -1}),
        (ScorerOptions, {"num_threads": 0}),
        (ScorerOptions, {"num_strips": -1}),
        (IdentityOptions, {"scale": 0}),
    ],
)
def test_invalid_options_are_rejected(make, values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make(**values)


def test_only_visuals_that_the_page_shows_are_kept() -> None:
    visuals = ClipVisuals(np.zeros((2, 2, 3), np.uint8), b"", b"", {}, None)
    clips = [
        ClipResult(f"a/{number}", "seen", {}, {"r_own_speech": value}, visuals)
        for number, value in enumerate((0.1, 0.9, float("nan"), 0.5, 0.4))
    ]
    left = drop_unused_visuals(clips, 1)
    assert [clip.visuals is not None for clip in left] == [False, True, True, False, False]
