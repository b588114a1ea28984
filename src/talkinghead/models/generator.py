"""The lip-sync generator: a face, speech and what surrounds the mouth to the mouth's frames.

Shape suffixes: B batch, T video frames, N = B x T, W audio windows (context + T + look-ahead), C
    feature rows or
channels, K mel frames of a window, D width, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.features.geometry import NUM_LIP_POINTS
from talkinghead.models.conditioning import EmotionEncoder, PoseEncoder
from talkinghead.models.encoders import AudioEncoder, ContextEncoder, FaceEncoder, group_norm
from talkinghead.models.transformer import TemporalTransformer

MAX_FLOW = 0.35
"""The longest displacement, in half widths of the mouth's box."""


@dataclass
class ReferenceFeatures:
    """A face encoded once.

    Its token [B, D], its mouth [B, 3, H, W], its share of the context [B, C, H, W] and one map a
    decoder stage [B, C, H, W].
    """

    token: Tensor
    mouth: Tensor
    surroundings: Tensor
    maps: list[Tensor]

    def expand(self, count: int) -> ReferenceFeatures:
        """Each face `count` times over: [B * count, ...], for as many frames of it."""
        one = (self.token, self.mouth, self.surroundings, *self.maps)
        token, mouth, surroundings, *maps = (t.repeat_interleave(count, 0) for t in one)
        return ReferenceFeatures(token, mouth, surroundings, maps)


@dataclass
class ContextFeatures:
    """The surroundings of N mouths: tokens [N, D] and maps for the first three decoder stages."""

    token: Tensor
    maps: list[Tensor]


@dataclass
class GeneratorOutput:
    """Mouths in [0, 1] and what they were made of: mouth = mask * rgb + (1 - mask) * warped.

    `mouth`, `rgb`, `warped` [..., 3, H, W]; `mask` [..., 1, H, W]; `flow` [..., 2, H / 2, W / 2]:
    where in the reference mouth each pixel comes from, less where it is, (x, y) in half widths of
    the box, and zero at its edge. `lips` [B, W, 20, 2]: where the speech alone takes the lips, for
    every audio window of a training stretch (see `lip_motion`); None where it was not asked for.
    """

    mouth: Tensor
    rgb: Tensor
    warped: Tensor
    mask: Tensor
    flow: Tensor
    lips: Tensor | None = None

    def unflatten(self, batch: int) -> GeneratorOutput:
        """[B * T, ...] to [B, T, ...]."""
        values = (self.mouth, self.rgb, self.warped, self.mask, self.flow)
        return GeneratorOutput(*(v.unflatten(0, (batch, -1)) for v in values))


class LipSyncGenerator(nn.Module):
    """Audio and face tokens -> transformer over time -> decoder -> warp, RGB and mask.

    Warping the reference's own texture keeps an unseen person's skin sharp; the RGB paints teeth
    and the dark of the mouth, within a fixed prior around the lips. At the start of training the
    output is the reference. A linear head reads the lips' motion off the tokens: a loss on it
    teaches the speech side at next to no cost, long before the pictures do.

    Args:
        dim: width of the tokens.
        audio_features: what the audio encoder hears: "mel", "mfcc", "prosody", one or several.
        audio_channels: the audio encoder's four widths.
        face_encoder: backbone of the reference's encoder; see `FaceEncoder`.
        face_encoder_weights: None, "imagenet" or a path.
        num_layers, num_heads, past_frames, lookahead_frames: see `TemporalTransformer`.
        decoder_channels: widths at a sixteenth, an eighth, a quarter and a half of `mouth_size`.
        context_channels: the context encoder's four widths.
        dropout: in the transformer.
        emotions: names of those that it can be told to show; see `EmotionEncoder`.
        head_pose: whether it is told how far each frame's head is turned; see `PoseEncoder`.
        num_mels, mel_window, face_size, mouth_size, mouth_box, mask_top: from the AVSpec; the box
            is (x, y, side).

    Paper: Siarohin et al., 2019, arXiv:2003.00196, for flow with an occlusion mask; Perez et al.,
        2018, arXiv:1709.07871, for FiLM.
    """

    _box_centre: Tensor
    _outside: Tensor

    def __init__(
        self,
        dim: int = 512,
        audio_features: Sequence[str] = ("mel",),
        audio_channels: Sequence[int] = (32, 64, 128, 256),
        face_encoder: str = "resnet50",
        face_encoder_weights: str | None = None,
        num_layers: int = 6,
        num_heads: int = 8,
        past_frames: int = 5,
        lookahead_frames: int = 2,
        decoder_channels: Sequence[int] = (512, 384, 192, 96),
        context_channels: Sequence[int] = (24, 48, 96, 128),
        dropout: float = 0.0,
        emotions: Sequence[str] = (),
        head_pose: bool = False,
        num_mels: int = 80,
        mel_window: int = 16,
        face_size: int = 256,
        mouth_size: int = 96,
        mouth_box: Sequence[int] = (56, 112, 144),
        mask_top: int = 144,
    ) -> None:
        super().__init__()
        self.lookahead_frames = lookahead_frames
        self.mouth_size = mouth_size
        self.audio_encoder = AudioEncoder(audio_features, num_mels, mel_window, audio_channels, dim)
        self.face_encoder = FaceEncoder(face_encoder, dim, face_encoder_weights)
        self.context_encoder = ContextEncoder(context_channels, dim)
        self.transformer = TemporalTransformer(
            dim, num_layers, num_heads, past_frames, lookahead_frames, dropout
        )
        self.lip_head = nn.Linear(dim, 2 * NUM_LIP_POINTS)
        self.decoder = Decoder(
            dim, decoder_channels, self.face_encoder.channels, context_channels, mouth_size
        )
        self.emotion = EmotionEncoder(emotions, dim) if emotions else None
        self.pose = PoseEncoder(dim) if head_pose else None
        self._mouth_box = x, y, side = tuple(mouth_box)
        centre = torch.tensor([x + side / 2, y + side / 2]) / face_size * 2 - 1
        self.register_buffer("_box_centre", centre, persistent=False)
        self._box_scale = side / face_size
        outside = torch.ones(1, 1, face_size // 2, face_size // 2)
        outside[..., mask_top // 2 : (y + side) // 2, x // 2 : (x + side) // 2] = 0
        self.register_buffer("_outside", outside, persistent=False)

    @property
    def context_frames(self) -> int:
        """Audio windows before the first frame that its tokens depend on."""
        return self.transformer.context_frames

    @property
    def needs_prosody(self) -> bool:
        """Whether the audio windows must have the prosody's rows below the mel's."""
        return self.audio_encoder.needs_prosody

    @property
    def device(self) -> torch.device:
        """Where its weights are, and its inputs must be."""
        return self._box_centre.device

    def forward(
        self,
        reference_face: Tensor,
        surroundings: Tensor,
        audio: Tensor,
        emotion: Tensor | None = None,
        head_turn: Tensor | None = None,
    ) -> GeneratorOutput:
        """A stretch of frames for training.

        Args:
            reference_face: [B, 3, H, W] in [0, 1].
            surroundings: [B, T, 3, H / 2, W / 2] in [0, 1], of the current faces.
            audio: windows [B, W, C, K], W = context_frames + T + lookahead_frames.
            emotion: int64 [B], numbers in `emotions`.
            head_turn: [B, T, 3], degrees (see `talkinghead.features.head_pose`).

        Returns:
            GeneratorOutput with leading axes [B, T].
        """
        batch, num_frames = surroundings.shape[:2]
        reference = self.encode_reference(reference_face, emotion)
        tokens = self.encode_audio(audio, reference)
        first = tokens.shape[1] - num_frames - self.lookahead_frames
        reference = reference.expand(num_frames)
        turn = None if head_turn is None else head_turn.flatten(0, 1)
        context = self.encode_context(surroundings.flatten(0, 1), reference, turn)
        spoken = tokens[:, first : first + num_frames].flatten(0, 1)
        output = self.decode(spoken, reference, context).unflatten(batch)
        output.lips = self.lip_head(tokens).unflatten(2, (NUM_LIP_POINTS, 2))
        return output

    def encode_reference(
        self, reference_face: Tensor, emotion: Tensor | None = None
    ) -> ReferenceFeatures:
        """Faces [B, 3, H, W] in [0, 1]: all that can be computed before anybody speaks.

        `emotion`, int64 [B], counts where the generator has emotions; None is the first of them.
        """
        features = self.face_encoder(reference_face)
        token = features.embedding
        if self.emotion is not None:
            token = self.emotion(token, emotion)
        x, y, side = self._mouth_box
        mouth = F.interpolate(
            reference_face[..., y : y + side, x : x + side],
            (self.mouth_size, self.mouth_size),
            mode="bilinear",
            antialias=True,
        )
        sizes = self.decoder.sizes
        maps = [self._crop(m, s) for m, s in zip(reversed(features.maps), sizes, strict=True)]
        around = self.context_encoder.reference(
            (F.avg_pool2d(reference_face, 2) * self._outside) - 0.5
        )
        maps = self.decoder.project_reference(maps, mouth)
        return ReferenceFeatures(token, mouth, around, maps)

    def encode_context(
        self,
        surroundings: Tensor,
        reference: ReferenceFeatures,
        head_turn: Tensor | None = None,
    ) -> ContextFeatures:
        """Current faces [N, 3, H / 2, W / 2] in [0, 1], masked; N references, or one for all.

        `head_turn`, degrees [N, 3], counts where the generator has `head_pose`; None is no turn.
        """
        features = self.context_encoder(surroundings, reference.surroundings)
        token = features.embedding
        if self.pose is not None:
            token = self.pose(token, head_turn)
        maps = [
            self._crop(m, s)
            for m, s in zip(reversed(features.maps), self.decoder.sizes[:3], strict=False)
        ]
        return ContextFeatures(token, self.decoder.project_context(maps))

    def encode_audio(self, audio: Tensor, reference: ReferenceFeatures) -> Tensor:
        """Windows [B, W, C, K] and the faces who speak to tokens [B, W, D], one for each window."""
        tokens = self.audio_encoder(audio.flatten(0, 1)).unflatten(0, audio.shape[:2])
        return self.transformer(tokens, reference.token)

    def decode(
        self, tokens: Tensor, reference: ReferenceFeatures, context: ContextFeatures
    ) -> GeneratorOutput:
        """Tokens [N, D] to frames; `reference` and `context` hold N entries, or one for all."""
        return self.decoder(tokens, reference, context)

    def _crop(self, maps: Tensor, size: int) -> Tensor:
        """The mouth's box out of a map of the whole face, resampled to size x size."""
        grid = identity_grid(size, maps.device).to(maps.dtype) * self._box_scale + self._box_centre
        grid = grid.to(maps.dtype).expand(maps.shape[0], -1, -1, -1)
        return F.grid_sample(maps, grid, align_corners=False, padding_mode="border")


class Decoder(nn.Module):
    """Upsampling CNN, 6 x 6 to 48 x 48: FiLM by the tokens, face features at every stage."""

    fade: Tensor
    prior: Tensor

    def __init__(
        self,
        dim: int,
        channels: Sequence[int],
        reference_channels: Sequence[int],
        context_channels: Sequence[int],
        mouth_size: int,
    ) -> None:
        super().__init__()
        self.sizes = [mouth_size // 16, mouth_size // 8, mouth_size // 4, mouth_size // 2]
        self.start = nn.Linear(dim, channels[0] * self.sizes[0] ** 2)
        widths = [*reversed(reference_channels)]
        widths[-1] += 12  # The last stage also sees the mouth's own pixels, four to a place.
        self.reference_maps = nn.ModuleList(
            nn.Conv2d(c, out, 1) for c, out in zip(widths, channels, strict=True)
        )
        self.context_maps = nn.ModuleList(
            nn.Conv2d(c, out, 1)
            for c, out in zip(reversed(context_channels), channels[:3], strict=False)
        )
        self.condition = nn.Sequential(nn.Linear(dim, dim), nn.SiLU())
        self.stages = nn.ModuleList(
            _Stage(c_in, c_out, dim)
            for c_in, c_out in zip((channels[0], *channels), channels, strict=False)
        )
        self.head = nn.Conv2d(channels[-1], 2 + 4 * 4, 3, padding=1)
        self._start_as_copy()
        self.register_buffer("fade", edge_fade(self.sizes[-1]), persistent=False)
        self.register_buffer("prior", lip_prior(mouth_size), persistent=False)

    def _start_as_copy(self) -> None:
        assert self.head.bias is not None
        with torch.no_grad():
            self.head.weight[: 2 + 12] = 0
            self.head.bias.zero_()
            self.head.bias[2 + 12 :] = -1.0

    def project_reference(self, maps: list[Tensor], mouth: Tensor) -> list[Tensor]:
        """The reference's share of every stage, computed once."""
        maps = [*maps[:-1], torch.cat([maps[-1], F.pixel_unshuffle(mouth, 2)], dim=1)]
        return [layer(m) for layer, m in zip(self.reference_maps, maps, strict=True)]

    def project_context(self, maps: list[Tensor]) -> list[Tensor]:
        """The context's share of the first three stages."""
        return [layer(m) for layer, m in zip(self.context_maps, maps, strict=True)]

    def forward(
        self, tokens: Tensor, reference: ReferenceFeatures, context: ContextFeatures
    ) -> GeneratorOutput:
        """Tokens [N, D], with projected reference and context maps, to frames [N, ...]."""
        hidden = self.condition(tokens + reference.token + context.token)
        x = self.start(hidden).unflatten(1, (-1, self.sizes[0], self.sizes[0]))
        for index, stage in enumerate(self.stages):
            skip = reference.maps[index]
            if index < len(context.maps):
                skip = skip + context.maps[index]
            x = stage(x, skip, hidden)
        head = self.head(x)
        flow = torch.tanh(head[:, :2]) * MAX_FLOW * self.fade
        painted = F.pixel_shuffle(head[:, 2:], 2)
        mask = torch.sigmoid(painted[:, 3:]) * self.prior
        warped = warp(reference.mouth, flow)
        # Painted over the warped skin, not from nothing: only what no warp brings must be learnt.
        rgb = torch.sigmoid(torch.logit(warped.float(), eps=0.02) + painted[:, :3])
        return GeneratorOutput(mask * rgb + (1 - mask) * warped, rgb, warped, mask, flow)


class _Stage(nn.Module):
    """Upsample where the skip is larger, convolve, add the skip, modulate, convolve."""

    def __init__(self, in_channels: int, out_channels: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm1, self.norm2 = group_norm(out_channels), group_norm(out_channels)
        self.film = nn.Linear(dim, 2 * out_channels)

    def forward(self, x: Tensor, skip: Tensor, hidden: Tensor) -> Tensor:
        x = self.conv1(x)
        if skip.shape[-1] != x.shape[-1]:
            x = F.interpolate(x, skip.shape[-2:], mode="nearest")
        scale, shift = self.film(hidden)[:, :, None, None].chunk(2, dim=1)
        x = F.silu(self.norm1(x + skip) * (1 + scale) + shift)
        return x + F.silu(self.norm2(self.conv2(x)))


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Image [N or 1, C, H, W] seen through a flow [N, 2, h, w] in half widths, upsampled."""
    size = image.shape[-1]
    if flow.shape[-1] != size:
        flow = F.interpolate(flow, (size, size), mode="bilinear")
    grid = identity_grid(size, flow.device) + flow.float().permute(0, 2, 3, 1)
    image = image.expand(grid.shape[0], -1, -1, -1)
    return F.grid_sample(image, grid.to(image.dtype), align_corners=False, padding_mode="border")


def identity_grid(size: int, device: torch.device) -> Tensor:
    """The sampling grid [1, size, size, 2] in [-1, 1] that changes nothing."""
    steps = (torch.arange(size, device=device) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1).unsqueeze(0)


def edge_fade(size: int, border: float = 0.12) -> Tensor:
    """[size, size]: 0 at the edge, 1 from `border` inwards, a raised cosine between."""
    place = (torch.arange(size) + 0.5) / size
    depth = torch.minimum(place, 1 - place).div(border).clamp(0, 1)
    ramp = 0.5 - 0.5 * torch.cos(torch.pi * depth)
    return ramp[:, None] * ramp[None, :]


def lip_prior(size: int) -> Tensor:
    """[size, size]: where RGB may paint.

    An ellipse around the lips, open or closed, soft at its rim.
    """
    place = (torch.arange(size) + 0.5) / size
    radius = torch.sqrt(
        ((place[None, :] - 0.5) / 0.38).square() + ((place[:, None] - 0.44) / 0.36).square()
    )
    return ((1 - radius) / 0.3).clamp(0, 1)
