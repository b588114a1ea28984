"""Predictor with a small random model and a detector without weights, and inputs for tests."""

from fractions import Fraction

import av
import numpy as np
import torch

from talkinghead.features.faces.alignment import RIGID_POINTS, canonical_points
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip, AVSpec, Box, Face

SPEC = AVSpec()
GENERATOR = {
    "dim": 32,
    "audio_channels": [4, 4, 8, 8],
    "face_encoder": "small",
    "num_layers": 1,
    "num_heads": 2,
    "past_frames": 3,
    "decoder_channels": [16, 16, 8, 8],
    "context_channels": [4, 4, 8, 8],
}
HEIGHT, WIDTH = 160, 192
STILL = SourceOptions(motion="none")
BOX = (slice(70, 160), slice(51, 142))
"""Region of the face of `Detector` that contains every pixel that may change."""


def aligned_face(x=0.0, size=1.0):
    """Return a face whose alignment shifts the image by `x` pixels and does nothing else."""
    points = np.zeros((468, 2), np.float32)
    points[list(RIGID_POINTS["mesh468"])] = canonical_points("mesh468", SPEC)
    points[4] = 128, 120  # The tip of the nose.
    return Face(Box(x, 0, x + size, size), points + np.float32([x, 0]), 1.0, "mesh468")


class Detector:
    """A detector that returns the same face for every image that is not black."""

    topology = "mesh468"

    def detect(self, image):
        if image.max() < 30:
            return []
        points = np.zeros((468, 2), np.float32)
        points[list(RIGID_POINTS["mesh468"])] = canonical_points("mesh468", SPEC) / 1.6 + [16, 0]
        points[4] = 96, 75  # The tip of the nose.
        return [Face(Box(20, 20, 140, 140), points, 1.0, "mesh468")]

    def track(self, image, previous):
        return next(iter(self.detect(image)), None)


def make_predictor(seed=0, **options):
    torch.manual_seed(seed)
    model = LipSyncGenerator(**{**GENERATOR, "num_layers": 2})
    # The heads are initialised with zeros, which would give no motion.
    torch.nn.init.normal_(model.decoder.head.weight, std=0.3)
    torch.nn.init.normal_(model.lip_head.weight, std=0.3)
    defaults = {"device": "cpu", "detector": Detector(), "articulation": 1.0, "lip_prior": None}
    return LipSyncPredictor(model, SPEC, **{**defaults, **options})


def lip_generator(**arguments):
    """Return a random model whose tokens have more values than the lip motion."""
    torch.manual_seed(0)
    model = LipSyncGenerator(**{**GENERATOR, "dim": 64, "num_layers": 2, **arguments}).eval()
    torch.nn.init.normal_(model.lip_head.weight, std=0.1)
    return model


def speech(duration_s=1.0, sample_rate=16_000, seed=0):
    count = round(duration_s * sample_rate)
    envelope = np.abs(np.sin(np.arange(count) / sample_rate * 9))
    noise = np.random.default_rng(seed).standard_normal(count)
    return AudioClip((0.2 * envelope * noise).astype(np.float32), sample_rate)


def write_video(path, times_s, black=(), fps=25, **muxer_options):
    with av.open(str(path), "w", options=muxer_options) as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        for number, time_s in enumerate(times_s):
            level = 0 if number in black else 100 + number % 50
            image = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def probe_output(path):
    """Return the frame times in s, the audio duration in s and the metadata of a file."""
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(audio=0))
        return times, samples / stream.rate, container.metadata
