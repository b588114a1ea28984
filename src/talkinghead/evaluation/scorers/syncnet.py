"""SyncNet, whose figures the field calls LSE-D and LSE-C, from the published file of its authors.

The file (syncnet_v2.model) is the user's to fetch; its weights are for research. The network is
built here as it was published, the cepstral coefficients are those that it was trained on.

Shape suffixes: N windows, T video frames, F frames of coefficients.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct
from torch import Tensor, nn

from talkinghead.errors import CheckpointError
from talkinghead.types import FloatArray, UInt8Array

FPS = 25
WINDOW_FRAMES = 5
SIDE = 224
_COEFFICIENTS_PER_FRAME = 4
_WINDOW_COEFFICIENTS = 20
_BATCH = 10

# Its crop, in units of the canonical face: about 2.8 distances of the outer eye corners wide, from
# 0.7 of them above the eyes. The face's own box, which the published script crops by, has no place
# here: it moves with the chin.
_CROP_LEFT, _CROP_TOP, _CROP_SIDE = -0.06, 0.05, 1.12

_SAMPLE_RATE = 16_000
_FRAME, _HOP, _NUM_FFT = 400, 160, 512
_NUM_FILTERS, _NUM_COEFFICIENTS, _LIFTER = 26, 13, 22
_PREEMPHASIS = 0.97


UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    TypeError,
    ValueError,
    AttributeError,
    pickle.UnpicklingError,
)
"""What a file that is not the state dict asked for makes of `torch.load` or `load_state_dict`."""


class SyncNet(nn.Module):
    """SyncNet with the published file's names.

    Paper: Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64, 3, 1),
            nn.MaxPool2d(1, 1),  # It does nothing but keep the numbers of the layers.
            *_conv2d(64, 192, 3, 1),
            nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384, 3, 1),
            *_conv2d(384, 256, 3, 1),
            *_conv2d(256, 256, 3, 1),
            nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4), 0),
        )
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (5, 7, 7), 2, 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), 2, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, 1),
            *_conv3d(256, 256, (1, 3, 3), 1, 1),
            *_conv3d(256, 256, (1, 3, 3), 1, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(256, 512, (1, 6, 6), 1, 0),
        )
        self.netfcaud, self.netfclip = _head(), _head()

    def embed_audio(self, coefficients: Tensor) -> Tensor:
        """Coefficients [N, 1, 13, 20] to [N, 1024]."""
        embedding: Tensor = self.netfcaud(self.netcnnaud(coefficients).flatten(1))
        return embedding

    def embed_video(self, frames: Tensor) -> Tensor:
        """Frames [N, 3, 5, 224, 224], BGR in [0, 255], to [N, 1024]."""
        embedding: Tensor = self.netfclip(self.netcnnlip(frames).flatten(1))
        return embedding


def load_syncnet(path: str | Path) -> SyncNet:
    """The network of a file, in evaluation mode.

    Raises:
        CheckpointError: the file is missing or is no SyncNet.
    """
    # Without memory until the file's own tensors take their places.
    with torch.device("meta"):
        network = SyncNet()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state, assign=True)
    except UNREADABLE as error:
        raise CheckpointError(
            f"SyncNet's weights {path} cannot be used ({str(error).splitlines()[0]}): give its "
            "authors' syncnet_v2.model, or sync.syncnet_path=null"
        ) from error
    return network.eval()


@torch.inference_mode()
def embed_clip(
    network: SyncNet, faces: UInt8Array, samples: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """A clip in SyncNet's space, one window of five frames starting at every frame.

    Args:
        network: see `load_syncnet`.
        faces: uint8 [T, face, face, 3] RGB, canonical faces at 25 Hz.
        samples: float [num_samples] at 16 kHz, from the first frame on.

    Returns:
        Embeddings of the sound and of the mouth, each float32 [num_windows, 1024].
    """
    device = next(network.parameters()).device
    sound = torch.from_numpy(mfcc(samples)).float()
    frames = torch.from_numpy(_crop(faces)).permute(3, 0, 1, 2)
    last_sound = (sound.shape[1] - _WINDOW_COEFFICIENTS) // _COEFFICIENTS_PER_FRAME
    num_windows = max(0, min(len(faces) - WINDOW_FRAMES, last_sound) + 1)
    heard, seen = [], []
    for first in range(0, num_windows, _BATCH):
        starts = range(first, min(first + _BATCH, num_windows))
        mouths = torch.stack([frames[:, s : s + WINDOW_FRAMES] for s in starts])
        columns = [s * _COEFFICIENTS_PER_FRAME for s in starts]
        sounds = torch.stack([sound[None, :, c : c + _WINDOW_COEFFICIENTS] for c in columns])
        seen.append(network.embed_video(mouths.float().to(device)).cpu())
        heard.append(network.embed_audio(sounds.to(device)).cpu())
    if not seen:
        return np.empty((0, 1024), np.float32), np.empty((0, 1024), np.float32)
    return torch.cat(heard).numpy(), torch.cat(seen).numpy()


def mfcc(samples: FloatArray) -> npt.NDArray[np.float64]:
    """The thirteen cepstral coefficients that SyncNet hears, a hundred times a second.

    Boxes of 25 ms, 26 triangular filters from 0 to 8 kHz, the log of the energy in place of the
    first coefficient, the others liftered: what `python_speech_features` gives for 16-bit samples.

    Args:
        samples: float [num_samples] in [-1, 1] at 16 kHz.

    Returns:
        float64 [13, F].
    """
    signal = np.clip(np.rint(samples.astype(np.float64) * 32_768), -32_768, 32_767)
    signal = np.append(signal[:1], signal[1:] - _PREEMPHASIS * signal[:-1])
    num_frames = 1 + max(0, -(-(len(signal) - _FRAME) // _HOP))
    signal = np.pad(signal, (0, (num_frames - 1) * _HOP + _FRAME - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, _FRAME)[::_HOP]
    power = np.square(np.abs(np.fft.rfft(frames, _NUM_FFT))) / _NUM_FFT
    smallest = np.finfo(np.float64).eps
    energy = np.maximum(power.sum(axis=1), smallest)
    bands = np.log(np.maximum(power @ _filters().T, smallest))
    coefficients = dct(bands, type=2, axis=1, norm="ortho")[:, :_NUM_COEFFICIENTS]
    order = np.arange(_NUM_COEFFICIENTS)
    coefficients *= 1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER)
    coefficients[:, 0] = np.log(energy)
    return np.ascontiguousarray(coefficients.T)


def _filters() -> npt.NDArray[np.float64]:
    """Triangles between evenly spaced mels, at whole bins of the spectrum: [26, 257]."""
    top = 2595 * np.log10(1 + _SAMPLE_RATE / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top, _NUM_FILTERS + 2) / 2595) - 1)
    edges = np.floor((_NUM_FFT + 1) * edges_hz / _SAMPLE_RATE)
    bins = np.arange(_NUM_FFT // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    inside = (bins >= low) & (bins < high)
    return np.where(inside, np.where(bins < middle, rising, falling), 0.0)


def _crop(faces: UInt8Array) -> UInt8Array:
    """Canonical faces RGB to [T, 224, 224, 3] BGR; what lies beyond the face's edge is repeated."""
    size = faces.shape[1]
    scale = SIDE / (_CROP_SIDE * size)
    shift_x, shift_y = -_CROP_LEFT * size * scale, -_CROP_TOP * size * scale
    matrix = np.array([[scale, 0, shift_x], [0, scale, shift_y]], dtype=np.float32)
    crops = [
        cv2.warpAffine(face[..., ::-1], matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
        for face in np.ascontiguousarray(faces)
    ]
    return np.stack(crops)


def _conv2d(
    in_channels: int, out_channels: int, kernel: int | tuple[int, int], padding: int
) -> list[nn.Module]:
    layer = nn.Conv2d(in_channels, out_channels, kernel, padding=padding)
    return [layer, nn.BatchNorm2d(out_channels), nn.ReLU()]


def _conv3d(
    in_channels: int, out_channels: int, kernel: tuple[int, int, int], stride: int, padding: int
) -> list[nn.Module]:
    layer = nn.Conv3d(in_channels, out_channels, kernel, (1, stride, stride), (0, padding, padding))
    return [layer, nn.BatchNorm3d(out_channels), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))
