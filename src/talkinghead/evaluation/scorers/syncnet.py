"""SyncNet, the network used for published LSE-D and LSE-C values, with the published weights.

The user supplies the weight file (syncnet_v2.model), whose weights are licensed for research. The
network and the cepstral coefficients match the published implementation.

Shape suffixes: N windows, T video frames, F frames of coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from pickle import PickleError
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct
from torch import Tensor, nn

from talkinghead.errors import CheckpointError
from talkinghead.models.tensor_files import read_plain_tensors
from talkinghead.types import FloatArray, UInt8Array

FPS = 25
WINDOW_FRAMES = 5
SIDE = 224
_COEFFICIENTS_PER_FRAME = 4
_WINDOW_COEFFICIENTS = 20
_BATCH = 10

# SyncNet's crop, as fractions of the canonical face size: about 2.8 outer-eye distances wide, with
# the upper edge 0.7 outer-eye distances above the eyes. The published script crops to the face box
# instead, which moves with the chin.
_CROP_LEFT, _CROP_TOP, _CROP_SIDE = -0.06, 0.05, 1.12

_SAMPLE_RATE = 16_000
_FRAME, _HOP, _NUM_FFT = 400, 160, 512
_NUM_FILTERS, _NUM_COEFFICIENTS, _LIFTER = 26, 13, 22
_PREEMPHASIS = 0.97

Network = TypeVar("Network", bound=nn.Module)
_UNREADABLE = (OSError, EOFError, RuntimeError, TypeError, ValueError, AttributeError, PickleError)


def _convolution(
    convolution: Callable[..., nn.Module],
    norm: Callable[[int], nn.Module],
    num_in: int,
    num_out: int,
    kernel: int | tuple[int, ...],
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | None = None,
) -> list[nn.Module]:
    """Return a convolution, its normalisation and ReLU; the default padding keeps the size."""
    if padding is None:
        sides = (kernel,) if isinstance(kernel, int) else kernel
        padding = tuple((side - 1) // 2 for side in sides)
        padding = padding[0] if len(padding) == 1 else padding
    layer = convolution(num_in, num_out, kernel, stride, padding)
    return [layer, norm(num_out), nn.ReLU(inplace=True)]


_conv2d = partial(_convolution, nn.Conv2d, nn.BatchNorm2d)
_conv3d = partial(_convolution, nn.Conv3d, nn.BatchNorm3d)


class SyncNet(nn.Module):
    """SyncNet, with the parameter names of the published file.

    Paper: Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64, 3),
            nn.MaxPool2d(1, 1),  # Identity layer: keeps the layer numbers of the published file.
            *_conv2d(64, 192, 3),
            nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384, 3),
            *_conv2d(384, 256, 3),
            *_conv2d(256, 256, 3),
            nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4), padding=0),
        )
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (5, 7, 7), (1, 2, 2), 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3)),
            *_conv3d(256, 256, (1, 3, 3)),
            *_conv3d(256, 256, (1, 3, 3)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(256, 512, (1, 6, 6), 1, 0),
        )
        self.netfcaud, self.netfclip = _head(), _head()

    def embed_audio(self, coefficients: Tensor) -> Tensor:
        """Return embeddings [N, 1024] of coefficients [N, 1, 13, 20]."""
        embedding: Tensor = self.netfcaud(self.netcnnaud(coefficients).flatten(1))
        return embedding

    def embed_video(self, frames: Tensor) -> Tensor:
        """Return embeddings [N, 1024] of frames [N, 3, 5, 224, 224], BGR in [0, 255]."""
        embedding: Tensor = self.netfclip(self.netcnnlip(frames).flatten(1))
        return embedding


def load_weights(build: Callable[[], Network], path: str | Path, expected: str) -> Network:
    """Return a network with the weights of a file, in evaluation mode.

    Raises:
        CheckpointError: the file is missing or does not fit the network; the message asks for
            `expected`.
    """
    # The meta device allocates no memory; the loaded tensors replace the parameters.
    with torch.device("meta"):
        network = build()
    try:
        network.load_state_dict(read_plain_tensors(path), assign=True)
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"weights {path} cannot be used ({reason}): give {expected}"
        ) from error
    return network.eval()


def load_syncnet(path: str | Path) -> SyncNet:
    """Return SyncNet with the weights of a file, in evaluation mode.

    Raises:
        CheckpointError: the file is missing or does not contain the weights of SyncNet.
    """
    return load_weights(SyncNet, path, "its authors' syncnet_v2.model, or sync.syncnet_path=null")


@torch.inference_mode()
def embed_clip(
    network: SyncNet, faces: UInt8Array, samples: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return embeddings of a clip, for the window of five frames that starts at each frame.

    The faces are canonical, uint8 [T, face, face, 3] RGB at 25 Hz; the samples, float at 16 kHz,
    start with the first frame.

    Returns:
        Audio and video embeddings, each float32 [num_windows, 1024].
    """
    device = next(network.parameters()).device
    coefficients = torch.from_numpy(mfcc(samples)).float()
    frames = torch.from_numpy(_crop(faces)).permute(3, 0, 1, 2)
    last_start = (coefficients.shape[1] - _WINDOW_COEFFICIENTS) // _COEFFICIENTS_PER_FRAME
    num_windows = max(0, min(len(faces) - WINDOW_FRAMES, last_start) + 1)
    audio, video = [torch.empty(0, 1024)], [torch.empty(0, 1024)]
    for first in range(0, num_windows, _BATCH):
        starts = range(first, min(first + _BATCH, num_windows))
        mouths = torch.stack([frames[:, s : s + WINDOW_FRAMES] for s in starts])
        columns = [s * _COEFFICIENTS_PER_FRAME for s in starts]
        audio_windows = [coefficients[None, :, c : c + _WINDOW_COEFFICIENTS] for c in columns]
        video.append(network.embed_video(mouths.float().to(device)).cpu())
        audio.append(network.embed_audio(torch.stack(audio_windows).to(device)).cpu())
    return torch.cat(audio).numpy(), torch.cat(video).numpy()


def mfcc(samples: FloatArray) -> npt.NDArray[np.float64]:
    """Return SyncNet's 13 cepstral coefficients at 100 Hz.

    Windows are rectangular and 25 ms long, and 26 triangular filters cover 0 to 8 kHz. The first
    coefficient is the log energy; the others are liftered. The result is equal to that of
    `python_speech_features` on 16-bit samples.

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
    """Return triangular mel filters [26, 257] with edges at integer bins of the spectrum."""
    top = 2595 * np.log10(1 + _SAMPLE_RATE / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top, _NUM_FILTERS + 2) / 2595) - 1)
    edges = np.floor((_NUM_FFT + 1) * edges_hz / _SAMPLE_RATE)
    bins = np.arange(_NUM_FFT // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.minimum(rising, falling).clip(0)


def _crop(faces: UInt8Array) -> UInt8Array:
    """Crop canonical RGB faces to [T, 224, 224, 3] BGR, replicating the border."""
    size = faces.shape[1]
    scale = SIDE / (_CROP_SIDE * size)
    shift_x, shift_y = -_CROP_LEFT * size * scale, -_CROP_TOP * size * scale
    matrix = np.array([[scale, 0, shift_x], [0, scale, shift_y]], dtype=np.float32)
    size_px, border = (SIDE, SIDE), cv2.BORDER_REPLICATE
    return np.stack(
        [cv2.warpAffine(f[..., ::-1], matrix, size_px, borderMode=border) for f in faces]
    )


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))
