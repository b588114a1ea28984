"""Adaptation of the last decoder layers to the mouth of one person.

The layers are trained on frames of the person's video with the detected lip motion, so that they
adapt to the appearance of this mouth (teeth, shading, jaw), but not to its motion.

Shape suffixes: N frames, D token dimension, S side of the mouth image in pixels.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from talkinghead.errors import CheckpointError
from talkinghead.features.faces.alignment import (
    as_tensor,
    lip_motion,
    mouth_crop,
    transform_points,
    warp_face,
)
from talkinghead.losses.reconstruction_loss import ReconstructionLoss
from talkinghead.media.decoding.video_image import to_array
from talkinghead.models.lipsync.decoder import (
    ContextFeatures,
    Decoder,
    GeneratorOutput,
    ReferenceFeatures,
)
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.audio.calibration import BoolArray, SpokenClip
from talkinghead.predict.mouth_generator import MouthGenerator
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.progress_bar import progress_bar
from talkinghead.types import AVSpec, FloatArray

logger = logging.getLogger(__name__)

MIN_GAIN = 0.03
"""Fraction by which the error on held-out frames must fall."""

_MAX_FRAMES, _INTERVAL_S = 400, Fraction(1, 5)
_MIN_FRAMES = 40
_NUM_REFERENCES, _BATCH_SIZE = 4, 16
_ITERATIONS, _SHIFT_ITERATIONS = 400, 100
_IMAGE_RATE, _SHIFT_RATE = 5e-4, 5e-3
# Weight of the lip landmarks in pixels, relative to that of the image.
_LANDMARK_WEIGHT = 0.02
# Layer of the decoder that moves the lips of this face.
_SHIFT = "lips.shift."
_IDENTITY = np.eye(2, 3, dtype=np.float32)


class MouthFrames:
    """Canonical faces of a video, evenly spaced in time, with their lips.

    Args:
        spec: the AVSpec of the faces.

    Attributes:
        frames: source frames whose images are canonical faces.
    """

    def __init__(self, spec: AVSpec) -> None:
        self.frames: list[SourceFrame] = []
        self._spec = spec
        self._interval_s = _INTERVAL_S

    def collect(self, frames: Iterable[SourceFrame]) -> Iterator[SourceFrame]:
        """Yield the frames unchanged, and keep at most 400 of them."""
        next_s = Fraction(0)
        for frame in frames:
            if frame.file_time_s >= next_s and _is_usable(frame):
                self.frames.append(self._canonical(frame))
                if len(self.frames) > _MAX_FRAMES:
                    self.frames = self.frames[::2]
                    self._interval_s *= 2
                next_s = frame.file_time_s + self._interval_s
            yield frame

    def _canonical(self, frame: SourceFrame) -> SourceFrame:
        assert frame.transform is not None and frame.lips is not None
        face = warp_face(frame.image, frame.transform, self._spec.face_size)
        lips = transform_points(frame.lips, frame.transform)
        return SourceFrame(
            face,
            frame.file_time_s,
            frame.duration_s,
            _IDENTITY,
            opening=frame.opening,
            lips=lips,
            pose=frame.pose,
        )


def _is_usable(frame: SourceFrame) -> bool:
    has_lips = frame.transform is not None and frame.lips is not None
    return has_lips and frame.strength == 1 and not (frame.is_covered or frame.is_extension)


@dataclass
class _Examples:
    """Inputs of the decoder for all frames and one reference.

    Attributes:
        reference: features of the reference.
        tokens_ND: audio tokens with the detected lip motion.
        contexts: context features of the frames.
    """

    reference: ReferenceFeatures
    tokens_ND: Tensor
    contexts: list[ContextFeatures]

    def decode(self, model: LipSyncGenerator, frames: NDArray[np.intp]) -> GeneratorOutput:
        """Return the mouths of some frames."""
        contexts = [self.contexts[frame] for frame in frames]
        maps = zip(*(context.maps for context in contexts), strict=True)
        token = torch.cat([context.token for context in contexts])
        context = ContextFeatures(token, [torch.cat(stage) for stage in maps])
        return model.decode(self.tokens_ND[frames], self.reference, context)


def adapt_decoder(
    model: LipSyncGenerator,
    clip: SpokenClip,
    frames: Sequence[SourceFrame],
    held_out: BoolArray,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Train the last decoder layers on the frames of one person.

    Args:
        model: the generator; it is not changed.
        clip: speech and lips of the video.
        frames: frames of `MouthFrames`.
        held_out: grid frames of the clip that are not used for training, bool [T].

    Returns:
        The trained tensors, with their names in the decoder, and the errors of the held-out mouths
        before and after (weighted mean absolute differences in [0, 1]). There are no tensors if the
        error does not fall by `MIN_GAIN`, and no errors if there are too few frames.
    """
    spec = clip.spec
    grid = [min(int(f.middle_s * spec.fps), len(clip.lips) - 1) for f in frames]
    motion, held_out = lip_motion(clip.lips)[grid], held_out[grid]
    is_known = np.isfinite(motion).all((1, 2))
    trained, tested = np.flatnonzero(is_known & ~held_out), np.flatnonzero(is_known & held_out)
    if len(trained) < _MIN_FRAMES or len(tested) < _MIN_FRAMES // 4:
        return {}, {}
    targets = mouth_crop(as_tensor(np.stack([to_array(frame.image) for frame in frames])), spec)
    targets = targets.to(model.device)
    references = _references([frames[int(n)] for n in trained])
    examples = [_encode(model, clip, frames, motion, reference) for reference in references]
    loss = ReconstructionLoss(spec.mouth_size).to(model.device)
    adapted = _with_decoder(model, copy.deepcopy(model.decoder))
    before = _error(model, examples, targets, tested, loss)
    lips = torch.from_numpy(np.stack([f.lips for f in frames if f.lips is not None]))
    with progress_bar("training the decoder", logger) as show:
        _train(adapted, examples, targets, lips.to(model.device), trained, loss, show)
    after = _error(adapted, examples, targets, tested, loss)
    errors = {"before": before, "after": after}
    if after > (1 - MIN_GAIN) * before:
        return {}, errors
    return {name: p.detach() for name, p in _trained_parameters(adapted.decoder)}, errors


def with_decoder_tensors(
    model: LipSyncGenerator, tensors: Mapping[str, Tensor]
) -> LipSyncGenerator:
    """Return a generator with other tensors in its decoder; the rest is shared with `model`.

    Raises:
        CheckpointError: The tensors belong to another model.
    """
    decoder = copy.deepcopy(model.decoder)
    own = decoder.state_dict()
    if any(name not in own or own[name].shape != t.shape for name, t in tensors.items()):
        raise CheckpointError(
            "the personalisation was made for another model: use the checkpoint that personalise "
            "used, or run it again"
        )
    decoder.load_state_dict({**own, **tensors})
    return _with_decoder(model, decoder)


def _with_decoder(model: LipSyncGenerator, decoder: Decoder) -> LipSyncGenerator:
    other = copy.copy(model)
    other._modules = {**model._modules, "decoder": decoder}
    return other


def _trained_parameters(decoder: Decoder) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of the lip positions, the last two stages and the output layer."""
    last = len(decoder.stages) - 2
    names = (_SHIFT, f"stages.{last}.", f"stages.{last + 1}.", "lip_maps.", "head.")
    return ((n, p) for n, p in decoder.named_parameters() if n.startswith(names))


def _references(frames: Sequence[SourceFrame]) -> list[Reference]:
    """Return references with mouths from closed to open."""
    order = sorted(frames, key=lambda frame: frame.opening)
    places = np.linspace(0.05, 0.95, _NUM_REFERENCES) * (len(order) - 1)
    chosen = [order[round(place)] for place in places]
    return [
        Reference(to_array(f.image), _IDENTITY, f.lips, f.pose)
        for f in chosen
        if f.lips is not None
    ]


@torch.no_grad()
def _encode(
    model: LipSyncGenerator,
    clip: SpokenClip,
    frames: Sequence[SourceFrame],
    motion: FloatArray,
    reference: Reference,
) -> _Examples:
    mouths = MouthGenerator(model, clip.spec)
    mouths.tokens.push(clip.samples)
    mouths.tokens.finish()
    encoded = mouths.encode([replace(frame, reference=reference) for frame in frames])
    assert encoded[0].reference is not None and encoded[0].reference.features is not None
    features = encoded[0].reference.features
    tokens_ND = mouths.tokens.at([frame.middle_s for frame in frames], features)
    lips = torch.from_numpy(motion).to(tokens_ND)
    tokens_ND = model.set_lip_motion(tokens_ND, lips)
    contexts = [_cloned_context(frame.context) for frame in encoded if frame.context is not None]
    return _Examples(_cloned_reference(features), tokens_ND.float().clone(), contexts)


def _cloned_context(context: ContextFeatures) -> ContextFeatures:
    """Return copies of tensors that were made in inference mode, for use with autograd."""
    return ContextFeatures(context.token.float().clone(), [m.float().clone() for m in context.maps])


def _cloned_reference(features: ReferenceFeatures) -> ReferenceFeatures:
    names = ("token", "mouth", "lips", "masked_face")
    tensors = {name: getattr(features, name).float().clone() for name in names}
    return ReferenceFeatures(**tensors, maps=[m.float().clone() for m in features.maps])


def _train(
    model: LipSyncGenerator,
    examples: Sequence[_Examples],
    targets: Tensor,
    lips: Tensor,
    trained: NDArray[np.intp],
    loss: ReconstructionLoss,
    show: Callable[[float, float], None],
) -> None:
    """Train the last layers of the model's decoder in place.

    The positions of the lips are trained alone first, because misplaced lips would lead to blur.

    Args:
        model: the generator.
        examples: its inputs.
        targets: real mouths [N, 3, S, S].
        lips: real lips [N, 20, 2] in canonical pixels.
        trained: indices of the frames.
        loss: loss of the mouths.
        show: called with the numbers of finished and of all iterations.
    """
    shift = list(model.decoder.lips.shift.parameters())
    image = [p for name, p in _trained_parameters(model.decoder) if not name.startswith(_SHIFT)]
    groups = [{"params": shift, "lr": _SHIFT_RATE}, {"params": image, "lr": _IMAGE_RATE}]
    optimizer = torch.optim.Adam(groups)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _ITERATIONS)
    random = np.random.default_rng(0)
    for iteration in range(_ITERATIONS):
        show(iteration, _ITERATIONS)
        batch = random.choice(trained, min(_BATCH_SIZE, len(trained)), replace=False)
        output = examples[iteration % len(examples)].decode(model, batch)
        assert output.points is not None
        total = _LANDMARK_WEIGHT * (output.points - lips[batch]).abs().mean()
        if iteration >= _SHIFT_ITERATIONS:
            total = total + sum(loss(output.mouth, targets[batch]).values())
        parameters = shift if iteration < _SHIFT_ITERATIONS else shift + image
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(total, parameters), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()
        decay.step()


@torch.no_grad()
def _error(
    model: LipSyncGenerator,
    examples: Sequence[_Examples],
    targets: Tensor,
    tested: NDArray[np.intp],
    loss: ReconstructionLoss,
) -> float:
    """Return the mean weighted L1 of the mouths of some frames, over all references."""
    errors = []
    for own in examples:
        for first in range(0, len(tested), _BATCH_SIZE):
            batch = tested[first : first + _BATCH_SIZE]
            errors.append(float(loss(own.decode(model, batch).mouth, targets[batch])["l1"]))
    return float(np.mean(errors))
