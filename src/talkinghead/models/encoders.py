"""Encoders of audio, reference face and masked face.

Shape suffixes: B batch, N batch x time, W audio windows, C channels or feature rows, K mel frames
of a window, D model width, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.errors import DependencyError, UsageError
from talkinghead.features.audio_features import check_names, input_features, num_feature_rows
from talkinghead.features.feature_registry import feature_class
from talkinghead.models.tensor_files import read_plain_tensors
from talkinghead.types import AVSpec

STRUCTURE_ONLY = "structure"
"""Value of `weights` that builds the structure of a pretrained encoder without its weights."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with up to 8 groups, which does not use batch statistics."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


def conv_layers(
    in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1
) -> list[nn.Module]:
    """Return three layers: a 3 x 3 convolution, normalisation and activation."""
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation),
        group_norm(out_channels),
        nn.SiLU(),
    ]


class AudioEncoder(nn.Module):
    """Encoder that converts a 200 ms window of audio features to one token.

    Each feature has a 4-layer CNN; a fully connected layer combines the outputs. There are no
    normalisation layers, as loudness separates speech from silence.

    Args:
        features: names of registered audio features.
        num_mels: number of mel bins.
        window: number of mel frames in a window.
        channels: channel widths of the four layers.
        dim: width of the token.

    Raises:
        UsageError: a feature is unknown or there is none.
    """

    def __init__(
        self,
        features: Sequence[str] = ("mel",),
        num_mels: int = 80,
        window: int = 16,
        channels: Sequence[int] = (32, 64, 128, 256),
        dim: int = 512,
    ) -> None:
        super().__init__()
        features = check_names(features)
        spec = AVSpec(num_mels=num_mels)
        self.input_features = input_features(features)
        self._input_rows = num_feature_rows(spec, self.input_features)
        self._from_mel = nn.ModuleDict(
            {n: feature_class(n)(spec) for n in features if n not in self.input_features}
        )
        rows = dict(zip(features, num_feature_rows(spec, features), strict=True))
        self.branches = nn.ModuleDict({name: _audio_cnn(rows[name], channels) for name in features})
        with torch.no_grad():
            windows = {name: torch.zeros(1, 1, rows[name], window) for name in features}
            size = sum(cnn(windows[name]).numel() for name, cnn in self.branches.items())
        self.project = nn.Sequential(nn.Linear(size, dim), nn.LayerNorm(dim))

    def forward(self, audio_NCK: Tensor) -> Tensor:
        """Encode windows [N, C, K] of the features `input_features` to tokens [N, dim]."""
        if audio_NCK.shape[1] != sum(self._input_rows):
            raise ValueError(
                f"audio windows have {audio_NCK.shape[1]} feature rows, expected "
                f"{sum(self._input_rows)}: {', '.join(self.input_features)}"
            )
        parts = audio_NCK.split(self._input_rows, dim=1)
        inputs = dict(zip(self.input_features, parts, strict=True))
        inputs |= {name: feature(parts[0]) for name, feature in self._from_mel.items()}
        hidden = [cnn(inputs[name].unsqueeze(1)).flatten(1) for name, cnn in self.branches.items()]
        return self.project(torch.cat(hidden, dim=1))


def _audio_cnn(rows: int, channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (in_channels, out_channels) in enumerate(pairwise((1, *channels))):
        stride = (2 if rows > 4 else 1, 1 if index == 0 else 2)
        rows = -(-rows // stride[0])
        layers += [nn.Conv2d(in_channels, out_channels, 3, stride, padding=1), nn.SiLU()]
    return nn.Sequential(*layers)


@dataclass
class FaceFeatures:
    """Features of a face: `embedding` [B, dim] and `maps` [B, C, H, W] at strides 4, 8, 16, 32."""

    embedding: Tensor
    maps: list[Tensor]


class FaceEncoder(nn.Module):
    """Encoder that converts a face to an embedding and spatial feature maps.

    With ImageNet weights the batch norms are frozen; otherwise group norms replace them, as
    references are encoded one at a time.

    Args:
        backbone: "resnet50", "mobilenet_v3", "efficientnet_b0" (torchvision's) or "small" (four
            plain stages).
        dim: width of the embedding.
        weights: None (random), "imagenet" (torchvision downloads them) or the path of a torchvision
            state dict.

    Raises:
        UsageError: the backbone is unknown.
        DependencyError: the weights are not available.

    Paper: He et al., 2015, arXiv:1512.03385; Howard et al., 2019, arXiv:1905.02244; Tan and Le,
        2019, arXiv:1905.11946.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: str = "resnet50", dim: int = 512, weights: str | Path | None = None
    ) -> None:
        super().__init__()
        if backbone not in _BACKBONES:
            raise UsageError(f"face encoder {backbone!r}: choose among {', '.join(_BACKBONES)}")
        self.backbone, self.channels = _BACKBONES[backbone](weights)
        self.project = nn.Linear(self.channels[-1], dim)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, face: Tensor) -> FaceFeatures:
        """Encode faces, RGB float [B, 3, 256, 256] in [0, 1]."""
        maps = list(self.backbone((face - self.mean) / self.std).values())
        return FaceFeatures(self.project(maps[-1].mean(dim=(2, 3))), maps)


class _Small(nn.Module):
    """Backbone of four stages of plain convolutions, which are fast on CPUs."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 4, stride=4)
        self.stages = nn.ModuleList()
        for before, width in pairwise((0, *channels)):
            down = conv_layers(before, width, stride=2) if before else [nn.Identity()]
            norm = [] if before else [group_norm(width), nn.SiLU()]
            self.stages.append(nn.Sequential(*down, *norm, *conv_layers(width, width)))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        maps = {}
        for index, stage in enumerate(self.stages):
            x = stage(x)
            maps[str(index)] = x
        return maps


def _small(weights: str | Path | None) -> tuple[nn.Module, list[int]]:
    if weights is not None:
        raise UsageError(f"face encoder 'small' has no published weights, got weights={weights!r}")
    channels = [32, 64, 96, 160]
    return _Small(channels), channels


def _torchvision(name: str, nodes: Sequence[str], channels: Sequence[int]) -> Callable[..., Any]:
    def build(weights: str | Path | None) -> tuple[nn.Module, list[int]]:
        try:
            from torchvision import models, ops
            from torchvision.models.feature_extraction import create_feature_extractor
        except ImportError as error:
            raise DependencyError(
                f"face_encoder={name} needs torchvision ({error}): pip install "
                "'talkinghead[vision]', or choose face_encoder=small"
            ) from error

        norm: Callable[..., nn.Module] = group_norm if weights is None else ops.FrozenBatchNorm2d
        network = getattr(models, name)(norm_layer=norm)
        if weights not in (None, STRUCTURE_ONLY):
            network.load_state_dict(_pretrained(name, weights))
        returns = {node: str(index) for index, node in enumerate(nodes)}
        return create_feature_extractor(network, returns), list(channels)

    return build


def _pretrained(name: str, weights: str | Path) -> dict[str, Tensor]:
    from torchvision import models

    if weights != "imagenet":
        if not Path(weights).is_file():
            raise DependencyError(
                f"no weights for {name} at {weights!r}: give a file or 'imagenet'"
            )
        state: dict[str, Tensor] = read_plain_tensors(weights)
        return state
    try:
        return models.get_model_weights(name).DEFAULT.get_state_dict(progress=False)
    except OSError as error:
        raise DependencyError(
            f"ImageNet weights for {name} could not be downloaded ({error}): connect to a "
            "network, give the path of a torchvision state dict, or set face_encoder_weights=null"
        ) from error


_BACKBONES: dict[str, Callable[[str | Path | None], tuple[nn.Module, list[int]]]] = {
    "small": _small,
    "resnet50": _torchvision(
        "resnet50", ("layer1", "layer2", "layer3", "layer4"), (256, 512, 1024, 2048)
    ),
    "mobilenet_v3": _torchvision(
        "mobilenet_v3_large",
        ("features.3", "features.6", "features.12", "features.16"),
        (24, 40, 112, 960),
    ),
    "efficientnet_b0": _torchvision(
        "efficientnet_b0",
        ("features.2", "features.3", "features.5", "features.8"),
        (24, 40, 112, 1280),
    ),
}


class ContextEncoder(nn.Module):
    """Encoder of the current frame outside the mouth mask: head pose, lighting and jaw outline.

    The first layer adds features of the masked reference, so that later layers can compare the head
    poses. The encoder runs for every frame of a video, so it is small and uses half the resolution.
    """

    def __init__(self, channels: Sequence[int] = (24, 48, 96, 128), dim: int = 256) -> None:
        super().__init__()
        self.channels = list(channels)
        self.current = nn.Conv2d(3, channels[0], 3, stride=2, padding=1)
        self.reference = nn.Conv2d(3, channels[0], 3, stride=2, padding=1, bias=False)
        self.norm = group_norm(channels[0])
        self.stages = nn.ModuleList(
            nn.Sequential(*conv_layers(*widths, stride=2)) for widths in pairwise(channels)
        )
        # At 1/32 of the resolution, this convolution reaches from the mask's border to its centre.
        self.spread = nn.Sequential(*conv_layers(channels[-1], channels[-1]))
        self.project = nn.Linear(channels[-1] * 16, dim)

    def forward(self, masked_face: Tensor, reference: Tensor) -> FaceFeatures:
        """Return an embedding and maps at strides 4, 8, 16 and 32 of the face.

        Args:
            masked_face: RGB float [N, 3, 128, 128] in [0, 1], black inside the mask.
            reference: [N or 1, C, 64, 64], `self.reference` of the masked reference.
        """
        x = F.silu(self.norm(self.current(masked_face - 0.5) + reference))
        maps = [x]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps[-1] = x = x + self.spread(x)
        return FaceFeatures(self.project(F.adaptive_avg_pool2d(x, 4).flatten(1)), maps)
