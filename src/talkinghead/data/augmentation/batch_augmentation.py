"""Augmentation of whole batches on their device: the last step before the model.

Every draw is seeded by (seed, number of the sample), so that it matters neither how many samples a
batch has nor how many processes divide them.

Appearance and geometry change alike for a sample's reference, targets and mean face, so that
nothing but the mouth differs between them. Blur, noise and compression are the reference's alone,
or the model would learn to draw them.

Shape suffixes: B samples, N pictures of a sample, C channels or feature rows, H and W pixels, L mel
frames of a stretch, S video frames of a stretch, K mel frames of a window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from kornia.enhance import jpeg_codec_differentiable
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import get_affine_matrix2d
from torch import Tensor

from talkinghead.data.augmentation.joint_transform import JointTransform
from talkinghead.data.augmentation.random_streams import Draws
from talkinghead.data.augmentation.vocal_tract import warp_vocal_tract
from talkinghead.errors import UsageError
from talkinghead.features.audio_features import input_features, num_feature_rows
from talkinghead.features.faces.alignment import NOSE_LINE, masked_face, mouth_crop
from talkinghead.features.feature_registry import feature_class
from talkinghead.features.mel import MEL_PER_DB, MEL_SILENCE
from talkinghead.types import LUMA, AVSpec

_ELASTIC_KNOTS = 6
# The height of closed lips in the canonical face, in [-1, 1].
_LIP_LINE = 0.345


@dataclass(frozen=True)
class AugmentationOptions:
    """How far each augmentation goes; 0 leaves it out.

    Attributes:
        min_strength: a sample's warp and colours are taken times a draw from [this, 1]: below 1
            many pictures stay nearly as they were filmed.
        brightness: greatest shift, of the range [0, 1].
        contrast: factor in 1 ± this.
        saturation: factor in 1 ± this.
        hue: greatest rotation of the hue, degrees.
        flip: probability of a mirror image.
        rotation: greatest angle, degrees.
        scale: factor in 1 ± this.
        aspect: greatest factor of the width to the height, less 1, or of the height to the width:
            faces are long and broad.
        shift: greatest shift, as a fraction of the face's size.
        elastic: size of the smooth warp, as a fraction of the face's size.
        turn: greatest foreshortening of one half of the face, much as of a head that is turned: how
            far the other half's edge lies further out, in half widths.
        still: probability that a sample is a photo: its targets' masked_face are the reference's.
            What lies around a mouth tells how open it is, and who sees that need not listen.
        reference_pose: greatest stretch and shear about the nose of the reference alone, much as of
            a head that nods or turns between it and the targets.
        reference_smile: probability that the reference alone has a broader mouth with its corners
            raised and its lips apart, as a stranger's photo may: closing a smile must be learnt.
        reference_blur: probability that the reference is blurred.
        reference_noise: probability that it is made noisy.
        reference_jpeg: probability that it is compressed.
        teacher_forced_lips: probability that the decoder is told how the lips move, so that it learns to draw
            them without having to guess (teacher forcing).
        mismatched_audio: probability that one who is told hears another sound: what is told must count, or
            a lip_prior who knows better has no say (see `set_lip_motion`).
        gain_db: greatest change of loudness.
        tilt_db: greatest difference between the lowest and the highest bin's gain.
        vocal_tract: the frequency axis is stretched by a factor in [1 / (1 + this), 1 + this].
        mel_noise: probability that noise is added to the sound.
    """

    min_strength: float = 0.0
    brightness: float = 0.12
    contrast: float = 0.25
    saturation: float = 0.4
    hue: float = 12.0
    flip: float = 0.5
    rotation: float = 10.0
    scale: float = 0.15
    aspect: float = 0.0
    shift: float = 0.03
    elastic: float = 0.015
    turn: float = 0.0
    still: float = 0.0
    reference_pose: float = 0.0
    reference_smile: float = 0.0
    reference_blur: float = 0.25
    reference_noise: float = 0.25
    reference_jpeg: float = 0.25
    teacher_forced_lips: float = 0.0
    mismatched_audio: float = 0.0
    gain_db: float = 8.0
    tilt_db: float = 8.0
    vocal_tract: float = 0.18
    mel_noise: float = 0.3

    def __post_init__(self) -> None:
        negative = sorted(name for name, value in vars(self).items() if value < 0)
        if negative:
            raise UsageError(f"augmentation: {', '.join(negative)} must not be negative")

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> AugmentationOptions:
        """Options from a config's mapping.

        Raises:
            UsageError: a name is unknown or a value negative.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise UsageError(
                f"augmentation has no {', '.join(unknown)}; "
                f"it has {', '.join(cls.__dataclass_fields__)}"
            )
        return cls(**values)


class BatchAugmentation:
    """Augments batches of `ClipDataset` items; the same seed and sample numbers give the same.

    Args:
        spec: the corpus's AVSpec.
        options: how far to go.
        seed: of every draw.
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

    def draws(self, batch: Mapping[str, Any], stream: int = 0) -> Draws:
        """The random numbers of a batch of items: pictures' 0, sound's 1."""
        return Draws(2 * self.seed + stream, batch["index"].tolist())

    def transform(self, draw: Draws, size: int, device: torch.device) -> JointTransform:
        """The joint part: one warp and one change of colour for all pictures of a sample."""
        strength = draw.uniform(self.options.min_strength, 1.0)
        grid = self._grid(draw, strength, size, device)
        return JointTransform(grid, *self._colour(draw, strength, device), self.spec)

    def still(self, draw: Draws, device: torch.device) -> Tensor:
        """Which samples are photos: bool [B]."""
        return draw.chosen(self.options.still).to(device)

    def told(self, lips: Tensor, audio: Mapping[str, Tensor], draw: Draws) -> dict[str, Tensor]:
        """What decoders are told: `teacher_forced_lips` [B, W, 20, 2], NaN for samples that are told nothing.

        And `decoder_mel` [B, W, C, K] where some of the told are `mismatched_audio`.
        """
        known = draw.chosen(self.options.teacher_forced_lips).to(lips.device)[:, None, None, None]
        told = {"teacher_forced_lips": torch.where(known, lips, torch.nan)}
        if self.options.mismatched_audio > 0:
            other = draw.chosen(self.options.mismatched_audio).to(lips.device)[:, None, None, None]
            heard = audio.get("mel_heard", audio["mel"])
            told["decoder_mel"] = torch.where(known & other, audio["mel_negative"], heard)
        return told

    def pose(self, joint: JointTransform, still: Tensor, draw: Draws) -> JointTransform:
        """The joint part as the reference gets it: from a head that is held in another way.

        Not where it is `still`, bool [B]: the other way could not be seen.
        """
        limit = torch.where(still, 0.0, self.options.reference_pose)[:, None, None]
        signs = (draw.symmetric(1.0).to(limit)[:, None, None] for _ in range(3))
        above, below, shear = (limit * sign for sign in signs)
        x, y = joint.grid.unbind(-1)
        depth = y - NOSE_LINE * 2 + 1
        stretched = depth * (1 + torch.where(depth < 0, above, below))
        grid = torch.stack([x + shear * depth, y + stretched - depth], -1)
        return replace(joint, grid=grid + self._smile(grid, draw))

    def _smile(self, grid: Tensor, draw: Draws) -> Tensor:
        """Where a smiling reference is sampled from, less where it would be: [B, H, W, 2]."""
        broad, lift, part = (
            torch.where(chosen, amount, 0.0).to(grid)[:, None, None]
            for chosen in [draw.chosen(self.options.reference_smile)]
            for amount in (draw.uniform(0.0, 0.3), draw.uniform(0.0, 0.08), draw.uniform(-0.1, 0.4))
        )
        x, y = grid[..., 0], grid[..., 1] - _LIP_LINE
        near = torch.exp(-((x / 0.3).square() + (y / 0.2).square()).square())
        return (
            torch.stack([-broad * x, lift * (x / 0.22).square() - part * y], -1) * near[..., None]
        )

    def reference(self, faces_BCHW: Tensor, draw: Draws) -> Tensor:
        """The reference's part: blur, noise and compression, each for some of the samples."""
        options, device = self.options, faces_BCHW.device
        faces = faces_BCHW.clone()
        chosen = draw.chosen(options.reference_blur)
        sigma = draw.uniform(0.5, 2.0).to(device)
        if chosen.any():
            sigmas = sigma[chosen, None].expand(-1, 2)
            faces[chosen] = gaussian_blur2d(faces[chosen], (9, 9), sigmas)
        chosen = draw.chosen(options.reference_noise)
        strength = draw.uniform(0.01, 0.06)
        if chosen.any():
            noise = draw.normal(*faces.shape[1:], chosen=chosen).to(device)
            scale = strength[chosen, None, None, None].to(device)
            faces[chosen] = (faces[chosen] + scale * noise).clamp(0.0, 1.0)
        chosen = draw.chosen(options.reference_jpeg)
        quality = draw.uniform(20.0, 80.0).to(device)
        if chosen.any():
            compressed = jpeg_codec_differentiable(faces[chosen], quality[chosen])
            faces[chosen] = compressed.clamp(0.0, 1.0)
        return faces

    def mel(self, features_BCL: Tensor, draw: Draws) -> Tensor:
        """The sound's part, alike for all of a sample's: float [B, rows, L], mel rows first."""
        options, device, num_mels = self.options, features_BCL.device, self.spec.num_mels
        parts = features_BCL.split(num_feature_rows(self.spec, self.audio_features), dim=1)
        mel = parts[0]
        factor = torch.exp(draw.symmetric(math.log1p(options.vocal_tract)))
        mel = warp_vocal_tract(mel, factor.to(device), self.spec)
        gain = draw.symmetric(options.gain_db).to(device)
        tilt = draw.symmetric(options.tilt_db / 2).to(device)
        slope = torch.linspace(-1.0, 1.0, num_mels, device=device)
        shift = (gain[:, None] + tilt[:, None] * slope)[:, :, None] * MEL_PER_DB
        # What lies at the floor is silence at any gain: a model must know it again.
        mel = torch.where(mel > MEL_SILENCE, mel + shift, mel)
        rest = [
            feature_class(name).change_gain(rows, gain)
            for name, rows in zip(self.audio_features[1:], parts[1:], strict=True)
        ]
        chosen = draw.chosen(options.mel_noise).to(device)
        level = draw.uniform(MEL_SILENCE + 0.5, MEL_SILENCE + 3.0).to(device)
        colour = draw.symmetric(0.8).to(device)
        floor = level[:, None] + colour[:, None] * slope
        grain = draw.normal(num_mels, mel.shape[-1]).to(device) * 0.3
        noisy = _add_power(mel, floor[:, :, None] + grain)
        mel = torch.where(chosen[:, None, None], noisy, mel)
        return torch.cat([mel.clamp(MEL_SILENCE, -MEL_SILENCE), *rest], 1)

    def _grid(self, draw: Draws, strength: Tensor, size: int, device: torch.device) -> Tensor:
        """Where each output pixel is taken from: float [B, H, W, 2] in [-1, 1]."""
        options = self.options
        box = self.spec.mouth_box
        # Turned and scaled about the mouth box's middle, or large factors would push the mouth out
        # of it.
        centre = torch.tensor([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]]).repeat(
            draw.batch, 1
        )
        shift = torch.stack([draw.symmetric(options.shift), draw.symmetric(options.shift)], 1)
        shift = shift * strength[:, None] * size
        scale = 1.0 + strength * draw.symmetric(options.scale)
        broader = torch.exp(strength * draw.symmetric(math.log1p(options.aspect) / 2))
        scale = torch.stack([scale * broader, scale / broader], 1)
        angle = strength * draw.symmetric(options.rotation)
        forward = get_affine_matrix2d(shift, centre, scale, angle)
        mirror = torch.where(draw.chosen(options.flip), -1.0, 1.0)
        # Pixels to the grid's [-1, 1] on both sides, with pixel centres at half.
        to_unit = torch.tensor(
            [
                [2.0 / size, 0.0, 1.0 / size - 1.0],
                [0.0, 2.0 / size, 1.0 / size - 1.0],
                [0.0, 0.0, 1.0],
            ]
        )
        theta = (to_unit @ torch.linalg.inv(forward) @ torch.linalg.inv(to_unit))[:, :2].clone()
        theta[:, 0] *= mirror[:, None]
        knots = draw.normal(2, _ELASTIC_KNOTS, _ELASTIC_KNOTS) * options.elastic
        knots = knots * strength[:, None, None, None]
        elastic = F.interpolate(knots.to(device), (size, size), mode="bicubic", align_corners=True)
        grid = F.affine_grid(theta.to(device), [draw.batch, 3, size, size], align_corners=False)
        turn = (strength * draw.symmetric(options.turn)).to(device)[:, None, None]
        turned = torch.stack([turn * grid[..., 0].square(), torch.zeros_like(grid[..., 0])], -1)
        return grid + turned + elastic.permute(0, 2, 3, 1)

    def _colour(self, draw: Draws, strength: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Brightness, contrast, saturation, hue as one affine map of RGB: [B, 3, 3], [B, 3]."""
        options = self.options
        luma = torch.tensor(LUMA)
        grey = luma.expand(3, 3)
        saturation = 1.0 + strength * draw.symmetric(options.saturation)
        chroma = (
            saturation[:, None, None]
            * _hue_rotation(torch.deg2rad(strength * draw.symmetric(options.hue)))
            @ (torch.eye(3) - grey)
        )
        contrast = 1.0 + strength * draw.symmetric(options.contrast)
        matrix = contrast[:, None, None] * (grey + chroma)
        offset = 0.5 * (1.0 - contrast) + strength * draw.symmetric(options.brightness)
        return matrix.to(device), offset[:, None].expand(-1, 3).to(device)


def finish_batch(
    batch: Mapping[str, Any], spec: AVSpec, augmentation: BatchAugmentation | None = None
) -> dict[str, Any]:
    """From collated items to what a model takes, augmented or as it is.

    Args:
        batch: collated `ClipDataset` items, on any device.
        spec: the corpus's AVSpec.
        augmentation: None leaves the pictures and sounds as they are.

    Returns:
        reference_face float [B, 3, face, face], mouths [B, T, 3, mouth, mouth], masked_face [B, T,
        3, face / 2, face / 2] and mean_mouth [B, 3, mouth, mouth] in [0, 1]; mel, mel_negative and,
        where the items have them, mel_heard and pseudo_label_mel float [B, W, rows, mel_window]; lips
        and pseudo_label_lips float [B, W, 20, 2]; reference_lips [B, 20, 2] and lip_points [B, T, 20,
        2], canonical pixels of these pictures; teacher_forced_lips and decoder_mel by choice (see `told`);
        index, clip_index, start int64 [B]; clip and speaker; by choice emotion int64 [B] and
        head_turn float [B, T, 3]; not augmented also faces float [B, T, 3, face, face].
    """
    names = ("lips", "reference_lips", "lip_points", "pseudo_label_lips", "emotion", "head_turn")
    rest = {name: batch[name] for name in names if name in batch}
    if augmentation is None:
        faces = batch["faces"].float() / 255.0
        pictures = {
            "reference_face": batch["reference_face"].float() / 255.0,
            "faces": faces,
            "masked_face": masked_face(faces, spec),
        }
    else:
        draw = augmentation.draws(batch)
        joint = augmentation.transform(draw, spec.face_size, batch["faces"].device)
        still = augmentation.still(draw, joint.grid.device)
        posed = augmentation.pose(joint, still, draw)
        reference = posed.faces(batch["reference_face"][:, None])[:, 0]
        around = torch.where(
            still[:, None, None, None, None], batch["reference_face"][:, None], batch["faces"]
        )
        pictures = {
            "reference_face": augmentation.reference(reference, draw),
            "masked_face": joint.masked_face(around),
        }
        rest["lip_points"] = joint.points(batch["lip_points"])
        rest["reference_lips"] = posed.points(batch["reference_lips"][:, None])[:, 0]
        if "head_turn" in rest:
            rest["head_turn"] = joint.turn(rest["head_turn"])
    finished = {**pictures, **finish_mouths(batch, spec, augmentation), **rest}
    if augmentation is not None and augmentation.options.teacher_forced_lips > 0:
        finished |= augmentation.told(batch["lips"], finished, draw)
    return finished


def finish_mouths(
    batch: Mapping[str, Any], spec: AVSpec, augmentation: BatchAugmentation | None = None
) -> dict[str, Any]:
    """As `finish_batch`, for who looks at mouths alone.

    Returns:
        mouths, mean_mouth, mel, mel_negative and the numbers; lip_points float [B, T, 20, 2] as
        they are in the items: no warp moves them.
    """
    images = torch.cat([batch["mean_face"][:, None], batch["faces"]], 1)
    if augmentation is None:
        images = mouth_crop(images.float() / 255.0, spec)
    else:
        draw = augmentation.draws(batch)
        images = augmentation.transform(draw, spec.face_size, images.device).mouths(images)
    audio = _finish_audio(batch, spec, augmentation)
    pictures = {"mouths": images[:, 1:], "mean_mouth": images[:, 0]}
    return {**pictures, "lip_points": batch["lip_points"], **audio}


def _finish_audio(
    batch: Mapping[str, Any], spec: AVSpec, augmentation: BatchAugmentation | None
) -> dict[str, Any]:
    names = ("mel", "mel_negative", "mel_heard", "pseudo_label_mel")
    sounds = [name for name in names if name in batch]
    starts = {"pseudo_label_mel": batch.get("pseudo_label_starts")}
    mels = torch.cat([batch[name] for name in sounds], -1)
    if augmentation is not None:
        mels = augmentation.mel(mels, augmentation.draws(batch, stream=1))
    parts = mels.chunk(len(sounds), -1)
    return {
        **{
            name: _cut_windows(part, starts.get(name, batch["window_starts"]), spec)
            for name, part in zip(sounds, parts, strict=True)
        },
        **{name: batch[name] for name in ("index", "clip_index", "start", "clip", "speaker")},
    }


def _cut_windows(features_BCL: Tensor, starts_BS: Tensor, spec: AVSpec) -> Tensor:
    """[B, S, C, K]: the windows of a stretch."""
    index_BSK = starts_BS[:, :, None] + torch.arange(spec.mel_window, device=starts_BS.device)
    rows = torch.arange(len(features_BCL), device=features_BCL.device)[:, None, None]
    return features_BCL.transpose(1, 2)[rows, index_BSK].transpose(2, 3).contiguous()


def _add_power(a: Tensor, b: Tensor) -> Tensor:
    """The level of two sounds together: log-mels are logarithms of magnitudes, and powers add."""
    nepers = math.log(10.0) / 10.0 / MEL_PER_DB
    return torch.logaddexp(a * nepers, b * nepers) / nepers


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotations of RGB about the grey axis by angles [B], radians: [B, 3, 3] (Rodrigues)."""
    axis = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    return cos * torch.eye(3) + sin * axis + (1 - cos) / 3.0
