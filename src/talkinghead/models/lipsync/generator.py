"""Lip-sync generator: mouth images from a reference face, speech and masked frames.

Shape suffixes: B batch, T video frames, N = B x T, W audio windows (context + T + look-ahead), C
feature rows or channels, K mel frames of a window, D width, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.models.encoders import AudioEncoder, ContextEncoder, FaceEncoder
from talkinghead.models.lipsync.conditioning import EmotionEncoder, PoseEncoder
from talkinghead.models.lipsync.decoder import (
    ContextFeatures,
    Decoder,
    GeneratorOutput,
    ReferenceFeatures,
)
from talkinghead.models.lipsync.lip_head import LipHead
from talkinghead.models.lipsync.lip_seam import identity_grid
from talkinghead.models.lipsync.transformer import TemporalTransformer
from talkinghead.value_rules import NonNegativeInt, PositiveInt, UnitFloat


class LipSyncGenerator(nn.Module):
    """Generator of mouth images: audio and face encoders, transformer over time, decoder.

    The decoder warps the reference's own texture, which keeps skin sharp for unseen faces, and
    adds RGB output for teeth and the mouth interior in a fixed region around the lips. Before
    training the output equals the reference. A linear head predicts the lip motion from the tokens.
    The lip motion drives the warp (see `LipWarper`); a loss on the lip motion trains the audio
    encoder at low cost.

    Args:
        dim: width of the tokens.
        audio_features: one or several registered audio features: "mel", "mfcc", "prosody".
        audio_channels: channel widths of the four stages of the audio encoder.
        face_encoder: backbone of the reference encoder: "resnet50", "mobilenet_v3",
            "efficientnet_b0" or "small".
        face_encoder_weights: None (random, with group norms), "imagenet" (downloaded by
            torchvision) or the path of a torchvision state dict.
        num_layers: number of transformer layers.
        num_heads: number of attention heads of each transformer layer.
        past_frames: number of past tokens that each layer attends to.
        lookahead_frames: number of future tokens on which the output depends.
        decoder_channels: channel widths at 1/16, 1/8, 1/4 and 1/2 of `mouth_size`.
        context_channels: channel widths of the four stages of the context encoder.
        dropout: dropout probability in the transformer.
        emotions: emotion labels to condition on, the default first; experimental.
        head_pose: whether to condition on the head's rotation relative to the reference;
            experimental.
        num_mels: see `AVSpec`.
        mel_window: see `AVSpec`.
        face_size: see `AVSpec`.
        mouth_size: see `AVSpec`.
        mouth_box: the mouth's box (x, y, side) in the canonical face; see `AVSpec`.
        mask_top: see `AVSpec`.

    Paper: Siarohin et al., 2019, arXiv:2003.00196, for flow with an occlusion mask; Perez et al.,
        2018, arXiv:1709.07871, for FiLM.

    Example:
        >>> model = LipSyncGenerator(face_encoder="small").eval()
        >>> reference = model.encode_reference(torch.rand(1, 3, 256, 256), torch.rand(1, 20, 2))
        >>> tokens = model.encode_audio(torch.randn(1, 40, 80, 16), reference)[0, 30:35]
        >>> context = model.encode_context(torch.rand(5, 3, 128, 128), reference)
        >>> model.decode(tokens, reference, context).mouth.shape
        torch.Size([5, 3, 96, 96])
    """

    max_mouth_scale = 2
    """Largest supported ratio of a reference face's size to `face_size`."""

    _box_centre: Tensor
    _outside: Tensor

    def __init__(
        self,
        dim: PositiveInt = 512,
        audio_features: Sequence[str] = ("mel",),
        audio_channels: Sequence[int] = (32, 64, 128, 256),
        face_encoder: str = "resnet50",
        face_encoder_weights: str | Path | None = None,
        num_layers: PositiveInt = 6,
        num_heads: PositiveInt = 8,
        past_frames: NonNegativeInt = 5,
        lookahead_frames: NonNegativeInt = 2,
        decoder_channels: Sequence[int] = (512, 384, 192, 96),
        context_channels: Sequence[int] = (24, 48, 96, 128),
        dropout: UnitFloat = 0.0,
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
        self.lip_head = LipHead(dim)
        self.decoder = Decoder(
            dim, decoder_channels, self.face_encoder.channels, context_channels, mouth_size
        )
        self.emotion = EmotionEncoder(emotions, dim) if emotions else None
        self.pose = PoseEncoder(dim) if head_pose else None
        self._mouth_box = x, y, side = tuple(mouth_box)
        centre = torch.tensor([x + side / 2, y + side / 2]) / face_size * 2 - 1
        self.register_buffer("_box_centre", centre, persistent=False)
        self._box_scale, self._face_size = side / face_size, face_size
        outside = torch.ones(1, 1, face_size // 2, face_size // 2)
        outside[..., mask_top // 2 : (y + side) // 2, x // 2 : (x + side) // 2] = 0
        self.register_buffer("_outside", outside, persistent=False)

    @property
    def context_frames(self) -> int:
        """Number of past audio windows that the token of a frame depends on."""
        return self.transformer.context_frames

    @property
    def input_features(self) -> tuple[str, ...]:
        """Names of the audio features in the rows of the audio windows, in order."""
        return self.audio_encoder.input_features

    @property
    def needs_head_pose(self) -> bool:
        """Return whether `encode_context` uses `head_turn`."""
        return self.pose is not None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._box_centre.device

    def forward(
        self,
        reference_face: Tensor,
        reference_lips: Tensor,
        masked_face: Tensor,
        audio: Tensor,
        emotion: Tensor | None = None,
        head_turn: Tensor | None = None,
        pseudo_label_audio: Tensor | None = None,
        teacher_forced_lips: Tensor | None = None,
        decoder_audio: Tensor | None = None,
    ) -> GeneratorOutput:
        """Generate consecutive frames [B, T, ...] for training.

        Args:
            reference_face: [B, 3, H, W] in [0, 1].
            reference_lips: [B, 20, 2], lip landmarks in canonical pixels (see `lip_points`).
            masked_face: [B, T, 3, H / 2, W / 2] in [0, 1], of the current frames.
            audio: windows [B, W, C, K], W = context_frames + T + lookahead_frames.
            emotion: int64 [B], indices into `emotions`.
            head_turn: [B, T, 3], degrees (see `talkinghead.features.faces.head_pose`).
            pseudo_label_audio: further windows shaped as `audio`, for which only the lip motion is
                returned.
            teacher_forced_lips: [B, W, 20, 2], lip motion that replaces the predicted one in the
                decoder; see `LipHead.set_motion`.
            decoder_audio: windows shaped as `audio` that replace it in the decoder.
        """
        batch, num_frames = masked_face.shape[:2]
        reference = self.encode_reference(reference_face, reference_lips, emotion)
        tokens = decoder_tokens = self.encode_audio(audio, reference)
        pseudo_label_motion = None
        if pseudo_label_audio is not None:
            other_tokens = self.encode_audio(pseudo_label_audio, reference)
            pseudo_label_motion = self.decode_lip_motion(other_tokens)
        if decoder_audio is not None:
            decoder_tokens = self.encode_audio(decoder_audio, reference)
        if teacher_forced_lips is not None:
            decoder_tokens = self.set_lip_motion(decoder_tokens, teacher_forced_lips)
        first = tokens.shape[1] - num_frames - self.lookahead_frames
        decoder_tokens = decoder_tokens[:, first : first + num_frames].flatten(0, 1)
        reference = reference.expand(num_frames)
        turn = None if head_turn is None else head_turn.flatten(0, 1)
        context = self.encode_context(masked_face.flatten(0, 1), reference, turn)
        output = self.decode(decoder_tokens, reference, context).unflatten(batch)
        output.motion = self.decode_lip_motion(tokens)
        output.pseudo_label_motion = pseudo_label_motion
        return output

    def encode_reference(
        self, reference_face: Tensor, reference_lips: Tensor, emotion: Tensor | None = None
    ) -> ReferenceFeatures:
        """Encode reference faces once for all frames.

        A face of k times the size `face_size` gives mouths of k times the size `mouth_size`, with
        k up to `max_mouth_scale`. The networks receive and return images of the same size as with
        k = 1; lips, teeth and the texture of the reference have more detail.

        Args:
            reference_face: [B, 3, k H, k W] in [0, 1].
            reference_lips: [B, 20, 2], lip landmarks in canonical pixels, in ibug68's order.
            emotion: int64 [B], used if the generator has emotions; None is the first of them.
        """
        scale = reference_face.shape[-1] // self._face_size
        x, y, side = (scale * length for length in self._mouth_box)
        box, size = reference_face[..., y : y + side, x : x + side], scale * self.mouth_size
        mouth = F.interpolate(box, (size, size), mode="bilinear", antialias=True)
        if scale > 1:
            reference_face = F.avg_pool2d(reference_face, scale)
        features = self.face_encoder(reference_face)
        token = features.embedding
        if self.emotion is not None:
            token = self.emotion(token, emotion)
        sizes = self.decoder.sizes
        maps = [self._crop(m, s) for m, s in zip(reversed(features.maps), sizes, strict=True)]
        masked = self.context_encoder.reference(
            (F.avg_pool2d(reference_face, 2) * self._outside) - 0.5
        )
        maps = self.decoder.project_reference(maps, mouth)
        x, y, side = self._mouth_box
        centre = reference_lips.new_tensor([x + side / 2, y + side / 2])
        return ReferenceFeatures(token, mouth, (reference_lips - centre) * 2 / side, masked, maps)

    def encode_context(
        self, masked_face: Tensor, reference: ReferenceFeatures, head_turn: Tensor | None = None
    ) -> ContextFeatures:
        """Encode the masked current faces.

        Args:
            masked_face: [N, 3, H / 2, W / 2] in [0, 1].
            reference: N references, or one for all.
            head_turn: [N, 3], degrees, used if the generator has `head_pose`; None is no turn.
        """
        features = self.context_encoder(masked_face, reference.masked_face)
        token = features.embedding
        if self.pose is not None:
            token = self.pose(token, head_turn)
        pairs = zip(reversed(features.maps), self.decoder.sizes[:3], strict=False)
        maps = [self._crop(m, s) for m, s in pairs]
        return ContextFeatures(token, self.decoder.project_context(maps))

    def encode_audio(self, audio: Tensor, reference: ReferenceFeatures) -> Tensor:
        """Encode audio windows [B, W, C, K] of B references to tokens [B, W, D]."""
        tokens = self.audio_encoder(audio.flatten(0, 1)).unflatten(0, audio.shape[:2])
        return self.transformer(tokens, reference.token)

    def decode_lip_motion(self, tokens: Tensor) -> Tensor:
        """Return the lip motion [..., 20, 2]: displacements of closed lips in canonical pixels."""
        motion: Tensor = self.lip_head(tokens)
        return motion

    def set_lip_motion(self, tokens: Tensor, lips: Tensor, blend_weight: float = 1.0) -> Tensor:
        """Return tokens whose lip motion is `lips` (see `LipHead.set_motion`)."""
        return self.lip_head.set_motion(tokens, lips, blend_weight)

    def decode(
        self, tokens: Tensor, reference: ReferenceFeatures, context: ContextFeatures
    ) -> GeneratorOutput:
        """Decode tokens [N, D] to frames, with N references and contexts or one for all tokens."""
        x, y, side = self._mouth_box
        output = self.decoder(tokens, self.decode_lip_motion(tokens) * 2 / side, reference, context)
        centre = output.points.new_tensor([x + side / 2, y + side / 2])
        output.points = output.points * side / 2 + centre
        return output

    def _crop(self, maps: Tensor, size: int) -> Tensor:
        """Crop feature maps of the whole face to the mouth box, and resize to size x size."""
        grid = identity_grid(size, maps.device).to(maps.dtype) * self._box_scale + self._box_centre
        grid = grid.to(maps.dtype).expand(maps.shape[0], -1, -1, -1)
        return F.grid_sample(maps, grid, align_corners=False, padding_mode="border")
