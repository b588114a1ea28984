"""The generator: dependencies between inputs and outputs, initial state, conditioning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.tiny_training import GENERATOR, generator_inputs
from helpers.tiny_training import SPEC as TINY_SPEC
from torch import Tensor

from talkinghead.errors import DependencyError, UsageError
from talkinghead.features.faces.alignment import mouth_crop
from talkinghead.models.checkpoint import build
from talkinghead.models.encoders import AudioEncoder, FaceEncoder
from talkinghead.models.lipsync.conditioning import choose_emotion
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.types import AVSpec

SPEC = AVSpec()
TINY = {**GENERATOR, "num_layers": 2}


@pytest.fixture
def generator() -> LipSyncGenerator:
    torch.manual_seed(0)
    return LipSyncGenerator(**TINY).eval()


def closed_lips(batch: int = 1) -> torch.Tensor:
    """Return closed lips, 60 canonical pixels wide, in the centre of the box: [B, 20, 2]."""
    angle = torch.arange(12) * torch.pi / 6
    outer = torch.stack([128 - 30 * angle.cos(), 172 - 9 * angle.sin()], -1)
    x = torch.tensor([102.0, 115, 128, 141, 154, 141, 128, 115])
    inner = torch.stack([x, torch.full_like(x, 172)], -1)
    return torch.cat([outer, inner]).expand(batch, -1, -1)


def _inputs(model: LipSyncGenerator, batch: int = 2) -> tuple[torch.Tensor, ...]:
    face, _, masked, audio = generator_inputs(model, batch, spec=SPEC)
    return face, closed_lips(batch), masked, audio


@torch.inference_mode()
def test_untrained_output_has_expected_shapes_and_equals_the_reference(
    generator: LipSyncGenerator,
) -> None:
    inputs = _inputs(generator)
    output = generator(*inputs)
    shapes = {name: tuple(value.shape) for name, value in vars(output).items() if value is not None}
    image = (2, 3, 3, 96, 96)
    assert shapes == {
        **{"mouth": image, "rgb": image, "warped": image, "mask": (2, 3, 1, 96, 96)},
        **{"flow": (2, 3, 2, 48, 48), "sides": (2, 3, 4, 48, 48)},
        "residual": (2, 3, 2, 48, 48),
        **{"motion": (2, 11, 20, 2), "points": (2, 3, 20, 2)},
    }
    assert 0 <= output.mouth.min() <= output.mouth.max() <= 1
    reference = mouth_crop(inputs[0], SPEC)[:, None]
    torch.testing.assert_close(output.warped, reference.expand_as(output.warped), atol=1e-4, rtol=0)
    assert (output.mouth[..., :4, :] - reference[..., :4, :]).abs().max() < 1e-4


def test_a_chunk_with_context_equals_the_whole_sequence(generator: LipSyncGenerator) -> None:
    torch.manual_seed(3)
    audio = torch.randn(1, 40, 80, 16)
    with torch.inference_mode():
        reference = generator.encode_reference(torch.rand(1, 3, 256, 256), closed_lips())
        whole = generator.encode_audio(audio, reference)
        chunk = generator.encode_audio(audio[:, 10:30], reference)
    inner = slice(generator.context_frames, 20 - generator.lookahead_frames)
    torch.testing.assert_close(chunk[:, inner], whole[:, 10:30][:, inner], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("features", [("mfcc",), ("prosody",), ("mel", "mfcc", "prosody")])
def test_audio_encoder_accepts_combinations_of_features(features: tuple[str, ...]) -> None:
    encoder = AudioEncoder(features, channels=(4, 8, 8, 16), dim=24)
    rows = 83 if "prosody" in features else 80
    tokens = encoder(torch.randn(5, rows, 16))
    assert tokens.shape == (5, 24)
    assert encoder.input_features == (("mel", "prosody") if rows == 83 else ("mel",))


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("small", [32, 64, 96, 160]),
        ("mobilenet_v3", [24, 40, 112, 960]),
        ("efficientnet_b0", [24, 40, 112, 1280]),
        ("resnet50", [256, 512, 1024, 2048]),
    ],
)
def test_face_encoders_return_maps_at_four_strides(backbone: str, channels: list[int]) -> None:
    encoder = FaceEncoder(backbone, dim=16).eval()
    with torch.inference_mode():
        features = encoder(torch.rand(1, 3, 256, 256))
    assert features.embedding.shape == (1, 16)
    assert [tuple(m.shape) for m in features.maps] == [
        (1, c, 256 // s, 256 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def test_unknown_encoders_and_missing_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="choose among mel, mfcc, prosody"):
        AudioEncoder(("whisper",))
    with pytest.raises(UsageError, match="resnet50"):
        FaceEncoder("vgg")
    with pytest.raises(UsageError, match="no published weights"):
        FaceEncoder("small", weights="imagenet")
    with pytest.raises(DependencyError, match=r"nowhere\.pth"):
        FaceEncoder("mobilenet_v3", weights="nowhere.pth")


@torch.inference_mode()
def test_decoder_follows_teacher_forced_lips(generator: LipSyncGenerator) -> None:
    inputs = _inputs(generator)
    wider = torch.zeros(2, 11, 20, 2)
    wider[:, :, 13:16, 1], wider[:, :, 17:20, 1] = -4.0, 4.0
    wider[1] = torch.nan
    plain, forced = generator(*inputs), generator(*inputs, teacher_forced_lips=wider)
    # The lip head starts at zero, so teacher forcing has no effect yet.
    assert torch.equal(plain.mouth, forced.mouth)
    torch.nn.init.orthogonal_(generator.lip_head.weight)
    plain, forced = generator(*inputs), generator(*inputs, teacher_forced_lips=wider)
    assert torch.equal(plain.motion, forced.motion)
    assert torch.equal(plain.points[1], forced.points[1])
    assert torch.equal(plain.mouth[1], forced.mouth[1])
    opened = (forced.points - plain.points)[0, :, 17:20, 1].mean()
    assert (forced.mouth - plain.mouth)[0].abs().max() > 0.01
    assert opened.abs() > 0.1


@torch.inference_mode()
def test_decoder_audio_replaces_the_audio_in_the_decoder_only(generator: LipSyncGenerator) -> None:
    torch.nn.init.orthogonal_(generator.lip_head.weight)
    inputs = _inputs(generator)
    plain, other = generator(*inputs), generator(*inputs[:3], -inputs[3])
    mixed = generator(*inputs, decoder_audio=-inputs[3])
    assert torch.equal(mixed.motion, plain.motion)
    assert torch.equal(mixed.mouth, other.mouth)
    assert not torch.equal(mixed.mouth, plain.mouth)


CONDITIONED = {**GENERATOR, "emotions": ["neutral", "happy"], "head_pose": True}
FRAMES = 3


def make(arguments: dict[str, Any]) -> LipSyncGenerator:
    torch.manual_seed(0)
    model = build("generator", arguments, TINY_SPEC).eval()
    assert isinstance(model, LipSyncGenerator)
    # The head starts at zero, which would hide the effect of the tokens.
    torch.manual_seed(1)
    torch.nn.init.normal_(model.decoder.head.weight, std=0.1)
    return model


def make_conditioned() -> LipSyncGenerator:
    """Return a generator with random conditioning weights."""
    model = make(CONDITIONED)
    assert model.emotion is not None
    assert model.pose is not None
    torch.nn.init.normal_(model.emotion.table.weight)
    torch.nn.init.normal_(model.pose.layers[-1].weight)
    return model


@torch.no_grad()
def mouths(model: LipSyncGenerator, *conditions: Tensor | None) -> Tensor:
    return model(*generator_inputs(model, frames=FRAMES), *conditions).mouth


def test_conditioning_is_off_by_default_and_has_no_initial_effect() -> None:
    plain, conditioned = make(GENERATOR), make(CONDITIONED)
    own, theirs = plain.state_dict(), conditioned.state_dict()
    assert {name.split(".")[0] for name in theirs.keys() - own.keys()} == {"emotion", "pose"}
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    conditions = torch.tensor([1, 0]), torch.full((2, FRAMES, 3), 20.0)
    assert torch.equal(mouths(conditioned, *conditions), mouths(plain))
    assert torch.equal(mouths(plain, *conditions), mouths(plain))


def test_each_sample_has_its_own_emotion() -> None:
    model = make_conditioned()
    first, mixed = mouths(model), mouths(model, torch.tensor([0, 1]))
    assert mixed.shape == (2, FRAMES, 3, TINY_SPEC.mouth_size, TINY_SPEC.mouth_size)
    torch.testing.assert_close(mixed[0], first[0])
    assert (mixed[1] - first[1]).abs().max() > 1e-3


def test_head_turn_affects_only_its_frame() -> None:
    model = make_conditioned()
    turn = torch.zeros(2, FRAMES, 3)
    torch.testing.assert_close(mouths(model, None, turn), mouths(model))
    turn[0, 1, 0] = 15.0
    change = (mouths(model, None, turn) - mouths(model)).abs().amax((2, 3, 4))
    assert change[0, 1] > 1e-3
    assert change.flatten()[[0, 2, 3, 4, 5]].max() < 1e-5


def test_choose_emotion_sets_the_default() -> None:
    model = make_conditioned()
    expected = mouths(model, torch.tensor([1, 1]))
    choose_emotion(model.emotion, "happy")
    torch.testing.assert_close(mouths(model), expected)
    with pytest.raises(UsageError, match="no emotion sad: it has neutral, happy"):
        choose_emotion(model.emotion, "sad")
    with pytest.raises(UsageError, match="no emotion happy: it has none"):
        choose_emotion(make(GENERATOR).emotion, "happy")
