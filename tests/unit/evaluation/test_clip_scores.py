"""Generation and scores of clips whose mouths follow the audio by construction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bar_clips import (
    EYE_DISTANCE_PX,
    SPEC,
    BarDetector,
    BarModel,
    draw_mouths,
    gaps_of,
)
from helpers.lip_priors import LoudnessLipPrior
from helpers.small_predictor import GENERATOR

from talkinghead.errors import UsageError
from talkinghead.evaluation.clip_generation import ClipGenerator
from talkinghead.evaluation.clip_scores import ClipScorer, RealClip, load_clip
from talkinghead.evaluation.report.results import ClipResult
from talkinghead.evaluation.scorers.clip_scorers import Scorers
from talkinghead.features.faces.alignment import as_tensor, masked_face
from talkinghead.models.checkpoint import build
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.compositing.renderers import FeatherRenderer
from talkinghead.predict.options import PredictOptions
from talkinghead.predict.source import reference_policy


@pytest.fixture(scope="module")
def short_clip(bar_corpus: Path, bar_clips: list[RealClip]) -> RealClip:
    return load_clip(bar_corpus, bar_clips[0].entry, SPEC, max_frames=16)


def score(clip: RealClip, other: RealClip | None, model: BarModel, **options) -> ClipResult:
    scorers = Scorers(SPEC, BarDetector())
    return ClipScorer(ClipGenerator(model, SPEC, **options), scorers).score(clip, other)


@pytest.mark.slow
def test_scores_of_a_model_that_follows_the_audio(bar_clips: list[RealClip]) -> None:
    values = score(*bar_clips, BarModel()).values
    for name in ("r_own", "r_own_speech", "r_ceiling", "r_follows_other", "ssim"):
        assert values[name] > 0.9, name
    assert max(values["r_other"], values["r_elsewhere"]) < 0.7
    assert min(values["l1_ratio"], values["l1_ratio_elsewhere"]) > 3
    assert values["shown_l1_ratio"] > 2
    assert values["shown_l1_own"] < values["shown_l1_reference"] / 2
    assert values["l1_own"] < values["l1_reference"] / 3
    assert values["opening_silence"] == 0
    # The real clip starts with a closed mouth, which is its 5th percentile.
    assert values["openness_silence"] == pytest.approx(0, abs=0.1)
    assert values["opening_own"] == pytest.approx(values["opening_real"], abs=0.03)
    assert values["motion_ratio"] == pytest.approx(1, abs=0.1)
    assert values["sharpness_ratio"] > 1  # Only the real bar was resampled.
    assert values["lmd"] < 0.01
    # Compare the clip's own audio with itself and with the rotated version.
    values = score(bar_clips[0], bar_clips[0], BarModel()).values
    assert values["r_other"] == pytest.approx(values["r_own"])
    assert values["l1_ratio"] == pytest.approx(1)
    assert values["r_elsewhere"] < 0.7


@pytest.mark.slow
def test_lip_prior_makes_audio_independent_model_follow_audio(bar_clips) -> None:
    model = BarModel(ignores_audio=True)
    values = score(*bar_clips, model).values
    assert values["r_own"] == values["r_other"] == values["motion_ratio"] == 0
    for name in ("l1_ratio", "shown_l1_ratio", "l1_ratio_speech"):
        assert values[name] == pytest.approx(1), name
    assert values["openness_silence"] > 0.25
    assert values["opening_silence"] == pytest.approx(values["opening_own"])
    options = PredictOptions(articulation=1.0, lip_prior=LoudnessLipPrior())
    values = score(*bar_clips, model, options=options).values
    assert values["r_own"] > 0.9
    assert values["r_other"] < 0.7
    assert values["opening_silence"] == 0


@pytest.mark.slow
def test_speech_ratio_excludes_pauses(bar_corpus: Path, bar_clips: list[RealClip]) -> None:
    clip = load_clip(bar_corpus, bar_clips[0].entry, SPEC, max_frames=30)
    features = clip.audio.features.clone()
    features[:, :4] = 2.0  # The audio differs only in the silence at the start of the clip.
    other = replace(clip, audio=replace(clip.audio, features=features))
    values = score(clip, other, BarModel()).values
    for prefix in ("", "lips_"):
        assert values[f"{prefix}l1_ratio"] > 1.2
        assert values[f"{prefix}l1_ratio_speech"] == pytest.approx(1)


def test_compositing_changes_only_the_mouth(short_clip: RealClip) -> None:
    clip, model = short_clip, BarModel()
    generator = ClipGenerator(model, SPEC)
    # The lips differ in all frames, so that the reference is not averaged.
    lips = np.arange(len(clip.faces) * 40, dtype=np.float32).reshape(-1, 20, 2)
    encoded = generator.encode(clip.faces, lips)
    shown = generator.generate(encoded, clip.audio.silenced()).shown
    # The generator receives the frames with a masked mouth.
    contexts = torch.cat(model.contexts[1:])
    torch.testing.assert_close(contexts, masked_face(as_tensor(clip.faces), SPEC))
    inside = np.zeros(shown.shape[1:3], dtype=bool)
    x0, y0, x1, y1 = (int(v) for v in SPEC.mouth_box)
    inside[y0:y1, x0:x1] = True
    # This corner of the box is outside the blended region.
    inside[y0 : y0 + 20, x0 : x0 + 20] = False
    assert (shown[:, ~inside] == clip.faces[:, ~inside]).all()
    assert np.abs(generator.copy_reference(encoded)[0].astype(int) - clip.faces[0]).max() <= 2


def test_still_mode_uses_only_the_reference_frame(short_clip: RealClip) -> None:
    clip, model = short_clip, BarModel()
    noise = np.random.default_rng(0).normal(0, 4, clip.faces.shape)
    faces = np.clip(clip.faces + noise, 0, 255).astype(np.uint8)
    generator = ClipGenerator(model, SPEC, mode="still", reference_frame=7)
    encoded = generator.encode(faces, clip.lips)
    assert all((frame.image == faces[7]).all() for frame in encoded.frames)
    mouths = generator.generate(encoded, clip.audio).mouths
    expected = draw_mouths(gaps_of(clip.audio.mel, len(clip.faces)))
    torch.testing.assert_close(mouths, expected, rtol=0, atol=1e-4)
    assert len(model.contexts) == 1
    # In video mode, averaging reduces the noise.
    image = ClipGenerator(model, SPEC).encode(faces, clip.lips).frames[0].reference.image
    error = [np.abs(x[:100].astype(float) - clip.faces[0, :100]).mean() for x in (image, faces[7])]
    assert error[0] < 0.5 * error[1]
    for options in ({"mode": "photo"}, {"generation": "raw"}):
        with pytest.raises(UsageError, match="must be"):
            ClipGenerator(model, SPEC, **options)


@pytest.fixture(scope="module")
def network() -> LipSyncGenerator:
    torch.manual_seed(0)
    model = build("generator", GENERATOR, SPEC)
    torch.nn.init.normal_(model.lip_head.weight, std=0.05)
    return model


@pytest.mark.slow
def test_generation_product_uses_samples_and_model_uses_features(
    bar_clips: list[RealClip], network: LipSyncGenerator
) -> None:
    clip, rng = bar_clips[0], np.random.default_rng(0)
    other_features = replace(clip.audio, features=torch.full_like(clip.audio.features, -4))
    noise = rng.normal(0, 0.1, len(clip.audio.samples)).astype(np.float32)
    other_samples = replace(clip.audio, samples=noise)
    for generation in ("model", "product"):
        generator = ClipGenerator(network, SPEC, generation=generation)
        encoded = generator.encode(clip.faces, clip.lips)
        own, features, samples = (
            generator.generate(encoded, audio).mouths
            for audio in (clip.audio, other_features, other_samples)
        )
        assert torch.equal(own, features) == (generation == "product")
        assert torch.equal(own, samples) == (generation == "model")


def test_product_selects_references_and_scores_composited_frames(
    short_clip: RealClip, network: LipSyncGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lips of a reference differ from those of its frame.
    monkeypatch.setattr(reference_policy, "refine_inner_lips", lambda image, lips: lips + 0.5)
    clip = short_clip
    points = np.random.default_rng(0).uniform(50, 200, (1, 68, 2)).astype(np.float32)
    points = np.repeat(points, len(clip.faces), axis=0)
    points[:, 36], points[:, 45] = (50, 50), (50 + EYE_DISTANCE_PX, 50)
    points[:, 62], points[:, 66] = (128, 180), (128, 190)
    points[9, 66] = (128, 181)  # The only closed mouth; the reference policy prefers it.
    lips = points[:, 48:68] + np.arange(len(points), dtype=np.float32)[:, None, None] / 10
    articulated = PredictOptions(articulation=2.0, lip_prior=None)
    product = ClipGenerator(network, SPEC, generation="product", options=articulated)
    encoded = product.encode(clip.faces, lips, points, "ibug68")
    assert set(encoded.reference_frames) == {9}
    generated = product.generate(encoded, clip.audio)
    assert generated.faces is generated.shown
    plain = ClipGenerator(network, SPEC, generation="product").generate(encoded, clip.audio)
    assert not np.array_equal(generated.shown, plain.shown)


def test_compositing_follows_the_options(short_clip: RealClip, network: LipSyncGenerator) -> None:
    # A different texture in the second half triggers the occlusion guard.
    faces, rng = short_clip.faces.copy(), np.random.default_rng(0)
    faces[8:, 180:220, 100:160] = rng.integers(0, 255, (8, 40, 60, 3))

    def shown(**options: Any) -> np.ndarray:
        chosen = PredictOptions(articulation=2.0, lip_prior=None, **options)
        generator = ClipGenerator(network, SPEC, generation="product", options=chosen)
        encoded = generator.encode(faces, short_clip.lips)
        return generator.generate(encoded, short_clip.audio).shown

    default = shown()
    changes = {"renderer": FeatherRenderer(), "stabilise": False, "occlusion_guard": False}
    for name, value in changes.items():
        assert not np.array_equal(shown(**{name: value}), default), name
