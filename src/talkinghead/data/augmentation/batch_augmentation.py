"""Augmentation of batches on the device of the batch.

Every random draw is seeded by (seed, sample index), so that results depend neither on the batch
size nor on the number of processes.

The reference, the targets and the mean face of a sample get the same warp and the same colour
change, so that only the mouth differs between them. Blur, noise and compression are applied to the
reference only; otherwise the model would learn to generate them.

Shape suffixes: B samples, C channels or feature rows, H and W pixels, L mel frames of a segment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from kornia.enhance import jpeg_codec_differentiable
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import get_affine_matrix2d
from torch import Tensor

from talkinghead.data.augmentation.joint_transform import JointTransform
from talkinghead.data.data_options import AugmentationOptions
from talkinghead.features.audio_features import input_features, num_feature_rows
from talkinghead.features.faces.alignment import NOSE_LINE
from talkinghead.features.feature_registry import feature_class
from talkinghead.features.mel import MEL_PER_DB, MEL_SILENCE, hz_to_mel, mel_to_hz
from talkinghead.types import LUMA, AVSpec

_ELASTIC_KNOTS = 6
_LIP_LINE = 0.345
"""Vertical position of closed lips in the canonical face, in [-1, 1]."""


class RandomStreams:
    """Random numbers for a batch, drawn on the CPU so that the results are equal on every device.

    The numbers of a sample depend only on the seed and on the entry of the sample in `indices`.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        # The large prime factor keeps the streams of neighbouring seeds apart.
        seeds = [(seed * 1_000_003 + index) % 2**63 for index in indices]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.batch_size = len(indices)

    def uniform(self, low: float, high: float) -> Tensor:
        """Return uniform random values [B] in [low, high)."""
        return low + (high - low) * self._rand()

    def symmetric(self, limit: float) -> Tensor:
        """Return uniform random values [B] in [-limit, limit)."""
        return self.uniform(-limit, limit)

    def bernoulli(self, probability: float) -> Tensor:
        """Return random booleans [B] that are true with the given probability."""
        return self._rand() < probability

    def normal(self, *shape: int, selected: Tensor | None = None) -> Tensor:
        """Return standard normal values [B, *shape].

        With `selected`, bool [B], only the rows of the selected samples are returned.
        """
        mask = [True] * self.batch_size if selected is None else selected.tolist()
        pairs = zip(self._generators, mask, strict=True)
        return torch.stack([torch.randn(shape, generator=g) for g, use in pairs if use])

    def _rand(self) -> Tensor:
        return torch.cat([torch.rand(1, generator=g) for g in self._generators])


class BatchAugmentation:
    """Augmentation of batches of `ClipDataset` items, applied by `finish_batch`.

    Example:
        >>> augmentation = BatchAugmentation(spec, AugmentationOptions(flip=0.0))
        >>> finish_batch(default_collate([dataset[0], dataset[1]]), spec, augmentation)
    """

    def __init__(
        self,
        spec: AVSpec,
        options: AugmentationOptions,
        seed: int = 0,
        audio_features: Sequence[str] = ("mel",),
    ) -> None:
        self.spec = spec
        self.options = options
        self.seed = seed
        self.audio_features = input_features(audio_features)

    def streams(self, batch: Mapping[str, Any], audio: bool = False) -> RandomStreams:
        """Return the random streams for the images or for the audio of a batch."""
        return RandomStreams(2 * self.seed + audio, batch["index"].tolist())

    def transform(self, streams: RandomStreams, size: int, device: torch.device) -> JointTransform:
        """Draw one warp and one colour change per sample, for all images of the sample."""
        strength = streams.uniform(self.options.min_strength, 1.0)
        grid = self._grid(streams, strength, size, device)
        return JointTransform(grid, *self._colour(streams, strength, device), self.spec)

    def teacher_forcing(
        self, lips: Tensor, audio: Mapping[str, Tensor], streams: RandomStreams
    ) -> dict[str, Tensor]:
        """Choose samples for teacher forcing, and return their decoder inputs.

        Returns:
            `teacher_forced_lips` [B, W, 20, 2]: the true lip motion `lips` in the chosen samples,
            NaN in the others. With mismatched audio also `decoder_mel` [B, W, C, K]: the entry
            `mel_negative` of `audio` in some of the chosen samples, `mel` in the others.
        """

        def choose(probability: float) -> Tensor:
            return streams.bernoulli(probability).to(lips.device)[:, None, None, None]

        forced = choose(self.options.teacher_forced_lips)
        inputs = {"teacher_forced_lips": torch.where(forced, lips, torch.nan)}
        if self.options.mismatched_audio > 0:
            mismatched = forced & choose(self.options.mismatched_audio)
            inputs["decoder_mel"] = torch.where(mismatched, audio["mel_negative"], audio["mel"])
        return inputs

    def change_pose(
        self, joint: JointTransform, still: Tensor, streams: RandomStreams
    ) -> JointTransform:
        """Return the transform of the references: the joint one, a change of pose and a smile.

        The pose is not changed in the samples in `still`, bool [B], whose other images show the
        same pose.
        """
        limit = torch.where(still, 0.0, self.options.reference_pose)[:, None, None]
        signs = (streams.symmetric(1.0).to(limit)[:, None, None] for _ in range(3))
        above, below, shear = (limit * sign for sign in signs)
        x, y = joint.grid.unbind(-1)
        depth = y - NOSE_LINE * 2 + 1
        stretched = depth * (1 + torch.where(depth < 0, above, below))
        grid = torch.stack([x + shear * depth, y + stretched - depth], -1)
        return replace(joint, grid=grid + self._smile(grid, streams))

    def _smile(self, grid: Tensor, streams: RandomStreams) -> Tensor:
        """Return the displacement [B, H, W, 2] of the sampling positions that draws a smile."""
        smiling = streams.bernoulli(self.options.reference_smile)
        ranges = ((0.0, 0.3), (0.0, 0.08), (-0.1, 0.4))
        broad, lift, part = (
            torch.where(smiling, streams.uniform(*limits), 0.0).to(grid)[:, None, None]
            for limits in ranges
        )
        x, y = grid[..., 0], grid[..., 1] - _LIP_LINE
        near = torch.exp(-((x / 0.3).square() + (y / 0.2).square()).square())
        moved = torch.stack([-broad * x, lift * (x / 0.22).square() - part * y], -1)
        return moved * near[..., None]

    def degrade(self, faces_BCHW: Tensor, streams: RandomStreams) -> Tensor:
        """Return the references, some of them with blur, noise or JPEG compression."""
        options, device = self.options, faces_BCHW.device
        faces = faces_BCHW.clone()
        blurred = streams.bernoulli(options.reference_blur)
        sigma = streams.uniform(0.5, 2.0).to(device)
        if blurred.any():
            sigmas = sigma[blurred, None].expand(-1, 2)
            faces[blurred] = gaussian_blur2d(faces[blurred], (9, 9), sigmas)
        noisy = streams.bernoulli(options.reference_noise)
        strength = streams.uniform(0.01, 0.06)
        if noisy.any():
            noise = streams.normal(*faces.shape[1:], selected=noisy).to(device)
            scale = strength[noisy, None, None, None].to(device)
            faces[noisy] = (faces[noisy] + scale * noise).clamp(0.0, 1.0)
        compressed = streams.bernoulli(options.reference_jpeg)
        quality = streams.uniform(20.0, 80.0).to(device)
        if compressed.any():
            decoded = jpeg_codec_differentiable(faces[compressed], quality[compressed])
            faces[compressed] = decoded.clamp(0.0, 1.0)
        return faces

    def audio(self, features_BCL: Tensor, streams: RandomStreams) -> Tensor:
        """Augment audio features [B, rows, L] of which the log-mel is first.

        The same change is applied to all frames of a sample.
        """
        options, device, num_mels = self.options, features_BCL.device, self.spec.num_mels
        mel, *others = features_BCL.split(num_feature_rows(self.spec, self.audio_features), dim=1)
        factor = torch.exp(streams.symmetric(math.log1p(options.vocal_tract)))
        mel = warp_vocal_tract(mel, factor.to(device), self.spec)
        gain = streams.symmetric(options.gain_db).to(device)
        tilt = streams.symmetric(options.tilt_db / 2).to(device)
        slope = torch.linspace(-1.0, 1.0, num_mels, device=device)
        shift = (gain[:, None] + tilt[:, None] * slope)[:, :, None] * MEL_PER_DB
        # Silence keeps its minimum value at any gain.
        mel = torch.where(mel > MEL_SILENCE, mel + shift, mel)
        rest = [
            feature_class(name).change_gain(rows, gain)
            for name, rows in zip(self.audio_features[1:], others, strict=True)
        ]
        noisy = streams.bernoulli(options.mel_noise).to(device)
        level = streams.uniform(MEL_SILENCE + 0.5, MEL_SILENCE + 3.0).to(device)
        colour = streams.symmetric(0.8).to(device)
        floor = level[:, None] + colour[:, None] * slope
        grain = streams.normal(num_mels, mel.shape[-1]).to(device) * 0.3
        # The log-mel is the logarithm of magnitudes, to which the noise is added.
        nepers = math.log(10.0) / 10.0 / MEL_PER_DB
        mixed = torch.logaddexp(mel * nepers, (floor[:, :, None] + grain) * nepers) / nepers
        mel = torch.where(noisy[:, None, None], mixed, mel)
        return torch.cat([mel.clamp(MEL_SILENCE, -MEL_SILENCE), *rest], 1)

    def _grid(
        self, streams: RandomStreams, strength: Tensor, size: int, device: torch.device
    ) -> Tensor:
        """Return the sampling position of each output pixel: float [B, H, W, 2] in [-1, 1]."""
        options = self.options
        # Scaling about the centre of the face would move the mouth out of its box.
        box = self.spec.mouth_box
        centre = torch.tensor([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]])
        centre = centre.repeat(streams.batch_size, 1)
        shift = torch.stack([streams.symmetric(options.shift), streams.symmetric(options.shift)], 1)
        shift = shift * strength[:, None] * size
        scale = 1.0 + strength * streams.symmetric(options.scale)
        broader = torch.exp(strength * streams.symmetric(math.log1p(options.aspect) / 2))
        scale = torch.stack([scale * broader, scale / broader], 1)
        angle = strength * streams.symmetric(options.rotation)
        forward = get_affine_matrix2d(shift, centre, scale, angle)
        mirror = torch.where(streams.bernoulli(options.flip), -1.0, 1.0)
        # Convert pixel positions, with centres at 0.5, to the range [-1, 1] of the grid.
        unit, middle = 2.0 / size, 1.0 / size - 1.0
        to_unit = torch.tensor([[unit, 0.0, middle], [0.0, unit, middle], [0.0, 0.0, 1.0]])
        theta = (to_unit @ torch.linalg.inv(forward) @ torch.linalg.inv(to_unit))[:, :2].clone()
        theta[:, 0] *= mirror[:, None]
        knots = streams.normal(2, _ELASTIC_KNOTS, _ELASTIC_KNOTS) * options.elastic
        knots = knots * strength[:, None, None, None]
        elastic = F.interpolate(knots.to(device), (size, size), mode="bicubic", align_corners=True)
        shape = [streams.batch_size, 3, size, size]
        grid = F.affine_grid(theta.to(device), shape, align_corners=False)
        turn = (strength * streams.symmetric(options.turn)).to(device)[:, None, None]
        turned = torch.stack([turn * grid[..., 0].square(), torch.zeros_like(grid[..., 0])], -1)
        return grid + turned + elastic.permute(0, 2, 3, 1)

    def _colour(
        self, streams: RandomStreams, strength: Tensor, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return the matrix [B, 3, 3] and the offset [B, 3] of a random colour change of RGB."""
        options = self.options
        grey = torch.tensor(LUMA).expand(3, 3)
        saturation = 1.0 + strength * streams.symmetric(options.saturation)
        hue = _hue_rotation(torch.deg2rad(strength * streams.symmetric(options.hue)))
        chroma = saturation[:, None, None] * hue @ (torch.eye(3) - grey)
        contrast = 1.0 + strength * streams.symmetric(options.contrast)
        matrix = contrast[:, None, None] * (grey + chroma)
        offset = 0.5 * (1.0 - contrast) + strength * streams.symmetric(options.brightness)
        return matrix.to(device), offset[:, None].expand(-1, 3).to(device)


def _hue_rotation(angle: Tensor) -> Tensor:
    """Return rotations [B, 3, 3] of RGB about the grey axis by angles [B] in radians."""
    axis = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    return cos * torch.eye(3) + sin * axis + (1 - cos) / 3.0


def warp_vocal_tract(mel_BCL: Tensor, factor_B: Tensor, spec: AVSpec) -> Tensor:
    """Scale the frequency axis of log-mels [B, num_mels, L]: energy at f moves to factor * f.

    A factor above 1 simulates a shorter vocal tract, whose voice is higher. Bins beyond the
    original range repeat the last bin.

    Paper: Jaitly and Hinton, "Vocal Tract Length Perturbation (VTLP) improves speech recognition",
        2013.
    """
    num_mels = spec.num_mels
    ends = hz_to_mel(torch.tensor([spec.fmin, spec.fmax], device=mel_BCL.device))
    step = (ends[1] - ends[0]) / (num_mels + 1)
    bins = torch.arange(num_mels, device=mel_BCL.device)
    centres_hz = mel_to_hz(ends[0] + step * (bins + 1))
    source = (hz_to_mel(centres_hz / factor_B[:, None]) - ends[0]) / step - 1
    source = source.clamp(0, num_mels - 1)
    # Linear interpolation as a matrix per sample, with a hat function around each source position.
    weights = (1.0 - (source[:, :, None] - bins).abs()).clamp_min(0.0)
    return torch.bmm(weights, mel_BCL)
