"""What an export is traced with and checked on: the demonstration's face and speech.

Shape suffixes: N frames, W audio windows, C feature rows, K mel frames of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkinghead.features.audio_features import AudioFeatures, mel_windows
from talkinghead.features.faces.alignment import as_tensor, masked_face, warp_face
from talkinghead.media.reader import read_audio, read_image
from talkinghead.paths import DEMO_SPEECH, demo_face
from talkinghead.runtime.backend import GeneratorBackend
from talkinghead.types import AVSpec

# Where the detector finds the demonstration's face and lips, for 256 pixels: it is not needed here.
_DEMO_TRANSFORM = np.array([[1.589, 0.082, -237.3], [-0.082, 1.589, -52.0]], dtype=np.float32)
# fmt: off
_DEMO_LIPS = (
    (91, 154), (106, 150), (116, 150), (127, 151), (138, 149), (149, 149), (166, 152),
    (148, 171), (139, 175), (128, 177), (117, 176), (108, 172),
    (96, 154), (118, 155), (128, 155), (137, 154), (161, 153), (137, 166), (128, 167), (119, 167),
)
# fmt: on
_SHIFT_PIXELS = 12


@dataclass(frozen=True)
class Sample:
    """A reference and a second of speech, the head moving to and fro.

    `face` [1, 3, face_size, face_size] and `masked_face` [N, 3, face_size / 2, face_size / 2] in
    [0, 1]; `lips` [1, 20, 2] of the face, canonical pixels; `audio` [1, W, C, K] with the context
    and the look-ahead that N frames need.
    """

    face: Tensor
    lips: Tensor
    masked_face: Tensor
    audio: Tensor


def demo_sample(spec: AVSpec, generator: GeneratorBackend, num_frames: int = 25) -> Sample:
    """The demonstration's photo and the beginning of its speech.

    Raises:
        DependencyError: scikit-image, which has the photo, is missing.
    """
    photo = read_image(demo_face())
    scale = spec.face_size / 256
    shifts = _SHIFT_PIXELS * np.sin(np.arange(num_frames) * 2 * np.pi / num_frames)
    transforms = [np.add(_DEMO_TRANSFORM, [[0, 0, s], [0, 0, 0]]) * scale for s in shifts]
    faces = [warp_face(photo, t.astype(np.float32), spec.face_size) for t in transforms]
    samples = torch.from_numpy(read_audio(DEMO_SPEECH, spec.sample_rate).samples)
    features = AudioFeatures(spec, generator.needs_prosody)(samples)
    start = math.ceil(spec.fps)  # It begins with a breath: the next second is speech.
    frames = range(
        start - generator.context_frames, start + num_frames + generator.lookahead_frames
    )
    images = as_tensor(np.stack(faces))
    audio = mel_windows(features, frames, spec.fps, spec)[None]
    lips = torch.tensor([_DEMO_LIPS], dtype=torch.float32) * scale
    return Sample(images[:1], lips, masked_face(images, spec), audio)
