"""Compare an exported generator with the torch generator on the demo photo and speech.

Shape suffixes: N frames, W audio windows, C feature rows, K mel frames of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import CheckpointError
from talkinghead.features.audio_features import AudioFeatures, mel_windows
from talkinghead.features.faces.alignment import as_tensor, masked_face, warp_face
from talkinghead.media.reader import read_audio, read_image
from talkinghead.paths import DEMO_SPEECH, demo_face
from talkinghead.runtime.generator_backend import GeneratorBackend
from talkinghead.types import AVSpec

MAX_PIXEL_DIFFERENCE = 1e-3
"""Largest accepted difference from torch of pixels in [0, 1]: a quarter of an 8-bit level."""
MIN_PSNR_DB = 30.0
"""Smallest accepted PSNR between the mouths of an int8 export and of torch."""
# Face alignment and lips of the demo photo at a face size of 256, so that no detector is needed.
_DEMO_TRANSFORM = np.array([[1.589, 0.082, -237.3], [-0.082, 1.589, -52.0]], dtype=np.float32)
# fmt: off
_DEMO_LIPS = (
    (91, 154), (106, 150), (116, 150), (127, 151), (138, 149), (149, 149), (166, 152),
    (148, 171), (139, 175), (128, 177), (117, 176), (108, 172),
    (96, 154), (118, 155), (128, 155), (137, 154), (161, 153), (137, 166), (128, 167), (119, 167),
)
# fmt: on
_SHIFT_PIXELS = 12
_TURN_DEG = (15.0, 5.0, 3.0)


@dataclass(frozen=True)
class Sample:
    """Generator inputs for N frames of speech with a head that moves from side to side.

    Attributes:
        face: reference face, [1, 3, face_size, face_size] in [0, 1].
        lips: lip landmarks of the reference face, [1, 20, 2] in canonical pixels.
        masked_face: [N, 3, face_size / 2, face_size / 2] in [0, 1].
        audio: [1, W, C, K], with the context and look-ahead windows that N frames need.
        head_turn: turn relative to the reference, degrees [N, 3]; used by models with head pose.
    """

    face: Tensor
    lips: Tensor
    masked_face: Tensor
    audio: Tensor
    head_turn: Tensor


def demo_sample(spec: AVSpec, generator: GeneratorBackend, num_frames: int = 25) -> Sample:
    """Return generator inputs made from the demo photo and the start of the demo speech.

    Raises:
        DependencyError: scikit-image, which contains the photo, is missing.
    """
    photo = read_image(demo_face())
    scale = spec.face_size / 256
    sway = np.sin(np.arange(num_frames) * 2 * np.pi / num_frames)
    shifts = _SHIFT_PIXELS * sway
    transforms = [np.add(_DEMO_TRANSFORM, [[0, 0, s], [0, 0, 0]]) * scale for s in shifts]
    faces = [warp_face(photo, t.astype(np.float32), spec.face_size) for t in transforms]
    samples = torch.from_numpy(read_audio(DEMO_SPEECH, spec.sample_rate).samples)
    features = AudioFeatures(spec, generator.input_features)(samples)
    start = math.ceil(spec.fps)  # Skip the first second, which contains only a breath.
    stop = start + num_frames + generator.lookahead_frames
    frames = range(start - generator.context_frames, stop)
    images = as_tensor(np.stack(faces))
    audio = mel_windows(features, frames, spec.fps, spec, generator.input_features)[None]
    lips = torch.tensor([_DEMO_LIPS], dtype=torch.float32) * scale
    head_turn = torch.from_numpy(np.outer(sway, _TURN_DEG).astype(np.float32))
    return Sample(images[:1], lips, masked_face(images, spec), audio, head_turn)


@torch.inference_mode()
def generate_mouths(generator: GeneratorBackend, sample: Sample) -> Tensor:
    """Generate the mouths [M, 3, H, W] for a single frame, a still face and a moving head."""
    parts = (sample.face, sample.lips, sample.masked_face, sample.audio, sample.head_turn)
    face, lips, masked_face, audio, turn = (tensor.to(generator.device) for tensor in parts)
    past = generator.context_frames
    reference = generator.encode_reference(face, lips)
    tokens = generator.encode_audio(audio, reference)[0, past : past + len(masked_face)]
    still, moving = (
        generator.encode_context(masked_face[:count], reference, turn[:count])
        for count in (1, len(masked_face))
    )
    calls = ((tokens[:1], still), (tokens, still), (tokens, moving))
    outputs = [generator.decode(tokens, reference, context).mouth for tokens, context in calls]
    return torch.cat(outputs).cpu()


def compare(
    exported: GeneratorBackend, model: GeneratorBackend, sample: Sample
) -> tuple[float, float]:
    """Return the largest pixel difference and the PSNR in dB between two generators' mouths."""
    error = (generate_mouths(exported, sample) - generate_mouths(model, sample)).double()
    psnr_db = -10 * torch.log10(error.square().mean().clamp_min(1e-20))
    return float(error.abs().max()), float(psnr_db)


def check_quality(max_difference: float, psnr_db: float, quantize: str) -> None:
    """Raise a CheckpointError if the results of `compare` exceed the accepted difference."""
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
