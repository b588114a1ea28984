"""The catalogue of the report contains exactly the scores that are computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from helpers.bar_clips import SPEC, BarDetector
from helpers.lip_priors import LoudnessLipPrior
from helpers.small_predictor import GENERATOR

from talkinghead.data.synthetic_clips import write_synthetic_clip
from talkinghead.evaluation.checkpoint_evaluation import EvaluationOptions, evaluate
from talkinghead.evaluation.report.score_catalogue import CATALOGUE
from talkinghead.evaluation.scorers.clip_scorers import Scorers
from talkinghead.evaluation.scorers.sound_times import SoundTimes
from talkinghead.evaluation.scorers.syncnet import SyncNet
from talkinghead.evaluation.system_scores import ScoreOptions, score_systems
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.models.checkpoint import build, load_expert, save_release


class _AnyClip(dict[str, Any]):
    def __contains__(self, clip: object) -> bool:
        return True

    def __missing__(self, clip: str) -> SoundTimes:
        return SoundTimes([0.2], [0.2])


class StubInception:
    def features(self, faces: np.ndarray) -> np.ndarray:
        return faces[:3, :2, 0, 0].astype(np.float32)


def all_scorers(detector: FaceDetector) -> Scorers:
    stub: Any = lambda predicted, target: 0.5  # noqa: E731
    expert = cast(Any, load_expert().model)
    syncnet, inception = SyncNet().eval(), cast(Any, StubInception())
    networks = (expert, syncnet, stub, stub, inception, LoudnessLipPrior())
    return Scorers(SPEC, detector, *networks, _AnyClip())


@pytest.mark.slow
def test_catalogue_contains_exactly_the_computed_scores(
    bar_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = {"generator": GENERATOR, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "-"}
    checkpoint, video = tmp_path / "tiny.safetensors", tmp_path / "clip.mp4"
    save_release(checkpoint, "generator", build("generator", GENERATOR, SPEC), meta)
    write_synthetic_clip(video, 1.0)
    computed: set[str] = set()
    for detector in (BarDetector(), build_detector()):
        scorers = all_scorers(detector)
        monkeypatch.setattr(Scorers, "build", lambda *_, built=scorers, **__: built)
        quick = {"max_frames": 12, "num_strips": 0, "max_clips": 1}
        if isinstance(detector, BarDetector):
            options = EvaluationOptions(generation="model", splits=["val"], **quick)
            report = evaluate(checkpoint, bar_corpus, tmp_path / "evaluate", options)["groups"]
        else:
            report = score_systems(video, video, tmp_path / "score", ScoreOptions(**quick))
            report = report["systems"]
        computed |= {name for column in report.values() for name in column["scores"]}
    assert computed == CATALOGUE.keys()
