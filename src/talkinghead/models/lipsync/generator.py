"""The lip-sync generator: a face, speech and what surrounds the mouth to the mouth's frames.

Shape suffixes: B batch, T video frames, N = B x T, W audio windows (context + T + look-ahead), C
    feature rows or
channels, K mel frames of a window, D width, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.features.faces.alignment import NUM_LIP_POINTS
from talkinghead.models.encoders import AudioEncoder, ContextEncoder, FaceEncoder
from talkinghead.models.lipsync.conditioning import EmotionEncoder, PoseEncoder
from talkinghead.models.lipsync.decoder import (
    ContextFeatures,
    Decoder,
    GeneratorOutput,
    ReferenceFeatures,
    identity_grid,
)
from talkinghead.models.lipsync.transformer import TemporalTransformer


class LipSyncGenerator(nn.Module):
    """Audio and face tokens -> transformer over time -> decoder -> warp, RGB and mask.

    Warping the reference's own texture keeps an unseen person's skin sharp; the RGB paints teeth
    and the dark of the mouth, within a fixed prior around the lips. At the start of training the
    output is the reference. A linear head reads the lips' motion off the tokens: it drives the warp
    (see `LipWarper`), and a loss on it teaches the speech side at next to no cost, long before the
    pictures do.

    Args:
        dim: width of the tokens.
        audio_features: one or several registered audio features: "mel", "mfcc", "prosody".
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
        nn.init.zeros_(self.lip_head.weight)
        nn.init.zeros_(self.lip_head.bias)
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
    def input_features(self) -> tuple[str, ...]:
        """Names of the audio features in the rows of the audio windows, in order."""
        return self.audio_encoder.input_features

    @property
    def needs_head_pose(self) -> bool:
        """Whether `encode_context` uses `head_turn`."""
        return self.pose is not None

    @property
    def device(self) -> torch.device:
        """Where its weights are, and its inputs must be."""
        return self._box_centre.device

    def forward(
        self,
        reference_face: Tensor,
        reference_lips: Tensor,
        masked_face: Tensor,
        audio: Tensor,
        emotion: Tensor | None = None,
        head_turn: Tensor | None = None,
        spoken: Tensor | None = None,
        teacher_forced_lips: Tensor | None = None,
        decoder_audio: Tensor | None = None,
    ) -> GeneratorOutput:
        """A stretch of frames for training.

        Args:
            reference_face: [B, 3, H, W] in [0, 1].
            reference_lips: [B, 20, 2], where its lips are, canonical pixels (see `lip_points`).
            masked_face: [B, T, 3, H / 2, W / 2] in [0, 1], of the current faces.
            audio: windows [B, W, C, K], W = context_frames + T + lookahead_frames.
            emotion: int64 [B], numbers in `emotions`.
            head_turn: [B, T, 3], degrees (see `talkinghead.features.faces.head_pose`).
            spoken: windows as `audio`'s, of which the lips' motion alone is wanted.
            teacher_forced_lips: [B, W, 20, 2], how the decoder is told that lips move, see `set_lip_motion`.
            decoder_audio: windows as `audio`'s, which the decoder hears instead of them.

        Returns:
            GeneratorOutput with leading axes [B, T].
        """
        batch, num_frames = masked_face.shape[:2]
        reference = self.encode_reference(reference_face, reference_lips, emotion)
        tokens = self.encode_audio(audio, reference)
        other = (
            None if spoken is None else self.decode_lip_motion(self.encode_audio(spoken, reference))
        )
        shown = tokens if decoder_audio is None else self.encode_audio(decoder_audio, reference)
        first = tokens.shape[1] - num_frames - self.lookahead_frames
        reference = reference.expand(num_frames)
        turn = None if head_turn is None else head_turn.flatten(0, 1)
        context = self.encode_context(masked_face.flatten(0, 1), reference, turn)
        shown = (
            shown
            if teacher_forced_lips is None
            else self.set_lip_motion(shown, teacher_forced_lips)
        )
        shown = shown[:, first : first + num_frames].flatten(0, 1)
        output = self.decode(shown, reference, context).unflatten(batch)
        output.motion, output.spoken = self.decode_lip_motion(tokens), other
        return output

    def encode_reference(
        self, reference_face: Tensor, reference_lips: Tensor, emotion: Tensor | None = None
    ) -> ReferenceFeatures:
        """Faces [B, 3, H, W] in [0, 1]: all that can be computed before anybody speaks.

        `reference_lips` [B, 20, 2] are theirs, canonical pixels in ibug68's order.
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
        middle = reference_lips.new_tensor([x + side / 2, y + side / 2])
        return ReferenceFeatures(token, mouth, (reference_lips - middle) * 2 / side, around, maps)

    def encode_context(
        self,
        masked_face: Tensor,
        reference: ReferenceFeatures,
        head_turn: Tensor | None = None,
    ) -> ContextFeatures:
        """Current faces [N, 3, H / 2, W / 2] in [0, 1], masked; N references, or one for all.

        `head_turn`, degrees [N, 3], counts where the generator has `head_pose`; None is no turn.
        """
        features = self.context_encoder(masked_face, reference.masked_face)
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

    def decode_lip_motion(self, tokens: Tensor) -> Tensor:
        """What the speech does to closed lips: [..., 20, 2], canonical pixels."""
        return self.lip_head(tokens).unflatten(-1, (NUM_LIP_POINTS, 2))

    def set_lip_motion(self, tokens: Tensor, lips: Tensor, share: float = 1.0) -> Tensor:
        """Tokens whose lips move as told: see the function of this name."""
        weight, bias = self.lip_head.weight.detach(), self.lip_head.bias.detach()
        return set_lip_motion(tokens, lips, share, weight, bias)

    def decode(
        self, tokens: Tensor, reference: ReferenceFeatures, context: ContextFeatures
    ) -> GeneratorOutput:
        """Tokens [N, D] to frames; `reference` and `context` hold N entries, or one for all."""
        x, y, side = self._mouth_box
        output = self.decoder(tokens, self.decode_lip_motion(tokens) * 2 / side, reference, context)
        middle = output.points.new_tensor([x + side / 2, y + side / 2])
        output.points = output.points * side / 2 + middle
        return output

    def _crop(self, maps: Tensor, size: int) -> Tensor:
        """The mouth's box out of a map of the whole face, resampled to size x size."""
        grid = identity_grid(size, maps.device).to(maps.dtype) * self._box_scale + self._box_centre
        grid = grid.to(maps.dtype).expand(maps.shape[0], -1, -1, -1)
        return F.grid_sample(maps, grid, align_corners=False, padding_mode="border")


def set_lip_motion(
    tokens: Tensor, lips: Tensor, share: float, weight: Tensor, bias: Tensor
) -> Tensor:
    """The nearest tokens whose lips move as told: somebody knows better than the speech side.

    Args:
        tokens: [..., D].
        lips: [..., 20, 2], what the speech does to closed lips, canonical pixels; tokens whose
            lips are NaN stay.
        share: how far the lips go from where the tokens have them to where they are told to be.
        weight: [40, D], which reads the lips off the tokens.
        bias: [40], likewise.

    Returns:
        [..., D].
    """
    change = lips.flatten(-2) - F.linear(tokens, weight, bias)
    change = torch.where(change.isfinite().all(-1, keepdim=True), change, 0.0)
    return tokens + share * F.linear(change, torch.linalg.pinv(weight))
