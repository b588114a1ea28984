"""The perceptual loss and the sources of its weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.losses import perceptual_loss as perceptual
from talkinghead.losses.perceptual_loss import BLOCK_LAYOUTS, PerceptualLoss

offline = pytest.mark.skipif(
    find_spec("stlpips_pytorch") is None, reason="needs the extra: pip install talkinghead[offline]"
)
WIDTHS = (4, 6, 8, 8, 8)


def vgg_state(num_convs: int, prefix: str = "features") -> dict[str, torch.Tensor]:
    """Return a narrow VGG's state dict with torchvision's layer numbers."""
    torch.manual_seed(0)
    state, number, channels = {}, 0, 3
    for width, convs in zip(WIDTHS, BLOCK_LAYOUTS[num_convs], strict=True):
        for _ in range(convs):
            state[f"{prefix}.{number}.weight"] = torch.randn(width, channels, 3, 3) / 3
            state[f"{prefix}.{number}.bias"] = torch.randn(width) / 10
            channels = width
            number += 2
        number += 1
    state["classifier.0.weight"] = torch.randn(5, 8)
    state["classifier.0.bias"] = torch.randn(5)
    return state


@pytest.fixture
def vgg_file(tmp_path: Path) -> Path:
    path = tmp_path / "vgg.pth"
    torch.save(vgg_state(16), path)
    return path


def test_features_equal_a_reference_vgg(vgg_file: Path) -> None:
    loss = PerceptualLoss(vgg_file, num_blocks=2)
    state = vgg_state(16)
    image = torch.rand(2, 3, 16, 16)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    x = (image - mean) / std
    expected = []
    for numbers in ((0, 2), (5, 7)):
        for number in numbers:
            weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
            x = torch.nn.functional.conv2d(x, weight, bias, padding=1).relu()
        expected.append(x)
        x = torch.nn.functional.max_pool2d(x, 2)
    for mine, theirs in zip(loss.features(image), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_only_predictions_get_gradients_and_weights_are_not_saved(vgg_file: Path) -> None:
    loss = PerceptualLoss(vgg_file)
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    predicted = torch.rand(1, 2, 3, 16, 16, requires_grad=True)
    target = torch.rand(1, 2, 3, 16, 16, requires_grad=True)
    loss(predicted, target).backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().sum() > 0
    assert target.grad is None


def test_max_images_uses_evenly_spaced_images(vgg_file: Path) -> None:
    loss = PerceptualLoss(vgg_file, max_images=2)
    predicted, target = torch.rand(5, 3, 16, 16), torch.rand(5, 3, 16, 16)
    expected = PerceptualLoss(vgg_file)(predicted[[0, 4]], target[[0, 4]])
    torch.testing.assert_close(loss(predicted, target), expected)


def test_invalid_arguments_are_refused(vgg_file: Path) -> None:
    for name, value in (("num_blocks", 6), ("max_images", 0)):
        with pytest.raises(UsageError, match=name):
            PerceptualLoss(vgg_file, **{name: value})


def test_errors_name_unusable_weight_files(tmp_path: Path) -> None:
    missing, text, foreign = (tmp_path / name for name in ("no.pth", "text.pth", "foreign.pth"))
    text.write_text("not weights")
    torch.save({"features.0.weight": torch.zeros(4, 3, 3, 3)}, foreign)
    for path in (missing, text, foreign):
        with pytest.raises(CheckpointError, match=path.name):
            PerceptualLoss(path)


def test_failed_download_names_the_offline_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(DependencyError, match=r"talkinghead\[offline\].*weights=offline"):
        PerceptualLoss("torchvision")


def test_without_the_package_auto_downloads_and_offline_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(perceptual, "package_folder", lambda _: None)
    monkeypatch.setattr(perceptual, "_download_vgg19", lambda: vgg_state(16))
    assert not PerceptualLoss("auto").trunk.blur_pool
    with pytest.raises(DependencyError, match="stlpips-pytorch is not installed"):
        PerceptualLoss("offline")


@offline
def test_offline_weights_are_verified_and_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    # The blur pool pads by two: 96 -> 49.
    features = PerceptualLoss("auto").features(torch.rand(1, 3, 96, 96))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 96, 96), (128, 49, 49)]
    monkeypatch.setattr(perceptual, "_OFFLINE_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match="SHA-256"):
        PerceptualLoss("offline")
