"""Compare the mouths of an exported generator with those of torch."""

from __future__ import annotations

import torch
from torch import Tensor

from talkinghead.errors import CheckpointError
from talkinghead.runtime.export.demo_sample import Sample
from talkinghead.runtime.generator_backend import GeneratorBackend

MAX_PIXEL_DIFFERENCE = 1e-3
"""Largest accepted difference of a pixel in [0, 1] from torch: a quarter of an 8-bit level."""
MIN_PSNR_DB = 30.0
"""Smallest accepted PSNR of int8 mouths against torch."""


@torch.inference_mode()
def generate_mouths(generator: GeneratorBackend, sample: Sample) -> Tensor:
    """Generate the mouths [M, 3, H, W] of a sample.

    They are those of a single frame, of a still face and of a moving head, in this order.
    """
    parts = (sample.face, sample.lips, sample.masked_face, sample.audio, sample.head_turn)
    face, lips, masked_face, audio, turn = (tensor.to(generator.device) for tensor in parts)
    past = generator.context_frames
    reference = generator.encode_reference(face, lips)
    tokens = generator.encode_audio(audio, reference)[0, past : past + len(masked_face)]
    still, moving = (
        generator.encode_context(masked_face[:count], reference, turn[:count])
        for count in (1, len(masked_face))
    )
    outputs = (
        generator.decode(tokens[:1], reference, still),
        generator.decode(tokens, reference, still),
        generator.decode(tokens, reference, moving),
    )
    return torch.cat([output.mouth for output in outputs]).cpu()


def compare(
    exported: GeneratorBackend, model: GeneratorBackend, sample: Sample
) -> tuple[float, float]:
    """Return the largest pixel difference and the PSNR, in dB, of the mouths of two generators."""
    error = (generate_mouths(exported, sample) - generate_mouths(model, sample)).double()
    psnr_db = -10 * torch.log10(error.square().mean().clamp_min(1e-20))
    return float(error.abs().max()), float(psnr_db)


def check_quality(max_difference: float, psnr_db: float, quantize: str) -> None:
    """Check the figures of `compare`.

    Raises:
        CheckpointError: the exported mouths differ too much from torch's.
    """
    if quantize == "none" and not max_difference <= MAX_PIXEL_DIFFERENCE:
        raise CheckpointError(
            f"the exported model's pixels differ from torch's by up to {max_difference:.2g}, "
            f"expected at most {MAX_PIXEL_DIFFERENCE}: try another format, or other versions of "
            "its packages"
        )
    if not psnr_db >= MIN_PSNR_DB:
        raise CheckpointError(
            f"the quantised model's mouths have a PSNR of {psnr_db:.1f} dB against torch's, "
            f"expected {MIN_PSNR_DB:.0f} or more: use quantize=none for this model"
        )
