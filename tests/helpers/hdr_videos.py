"""HDR videos for tests."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from talkinghead.media.decoding.planes import plane_array

PQ, HLG = 16, 18
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
WEIGHTS = np.array([0.2627, 0.6780, 0.0593])


def encode_hlg(linear: np.ndarray) -> np.ndarray:
    """Return the HLG signal of scene-linear light, from BT.2100."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    logarithm = a * np.log(np.maximum(12 * linear - b, 1e-9)) + c
    return np.where(linear <= 1 / 12, np.sqrt(3 * linear), logarithm)


def encode_pq(nits: np.ndarray) -> np.ndarray:
    """Return the PQ signal of a luminance in cd/m2, from BT.2100."""
    power = np.power(np.clip(nits / 10_000, 0, 1), 2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hdr_levels(signal: np.ndarray) -> np.ndarray:
    """Return 10-bit levels YUV of the signal of each BT.2020 channel, [..., 3] in [0, 1]."""
    red, _, blue = np.moveaxis(signal, -1, 0)
    luma = signal @ WEIGHTS
    u, v = 512 + 896 * (blue - luma) / 1.8814, 512 + 896 * (red - luma) / 1.4746
    return np.stack([64 + 876 * luma, u, v], -1)


def write_hdr_video(
    path: Path, signals: list[np.ndarray], transfer: int = HLG, crf: int = 4, **parameters: str
) -> Path:
    """Write a video from the signals [H, W, 3] of the BT.2020 channels, in [0, 1]."""
    height, width, _ = signals[0].shape
    joined = ":".join(["log-level=none", *(f"{key}={text}" for key, text in parameters.items())])
    with av.open(str(path), "w") as container:
        options = {"x265-params": joined.replace("_", "-"), "crf": str(crf)}
        stream = container.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p10le"
        context = stream.codec_context
        context.time_base = stream.time_base = Fraction(1, 25)
        context.colorspace, context.color_range = 9, 1
        context.color_primaries, context.color_trc = 9, transfer
        for number, signal in enumerate(signals):
            frame = av.VideoFrame(width, height, "yuv420p10le")
            levels = hdr_levels(signal)
            for index in range(3):
                plane = plane_array(frame, index)
                size = plane.shape[::-1]
                scaled = cv2.resize(levels[..., index], size, interpolation=cv2.INTER_AREA)
                plane[:] = np.rint(scaled).clip(0, 1023)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
