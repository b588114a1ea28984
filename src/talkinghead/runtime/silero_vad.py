"""Silero's voice activity detector (MIT), as distributed with faster-whisper."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from talkinghead.errors import DependencyError
from talkinghead.types import FloatArray

SAMPLE_RATE = 16_000
WINDOW_SIZE = 512
"""Number of samples in a detection window of 32 ms."""
_CONTEXT_SIZE = 64


class SileroVAD:
    """A detector of speech in the windows of a stream.

    One object for each stream. Objects share the loaded model if `session` is given.

    Raises:
        DependencyError: faster-whisper is not installed, or has another detector.
    """

    def __init__(self, session: Any = None) -> None:
        self.session = load_session() if session is None else session
        self._state = [np.zeros((1, 1, 128), np.float32)] * 2
        # The model's input is a window that is preceded by the last samples of the previous window.
        self._pending = np.zeros(_CONTEXT_SIZE, np.float32)

    @property
    def num_pending(self) -> int:
        """Number of samples that do not fill a window yet."""
        return len(self._pending) - _CONTEXT_SIZE

    def push(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Add samples float32 [num_samples] at 16 kHz.

        Returns:
            The complete windows [W, 512], and the probability [W] that each contains speech.
        """
        samples = np.concatenate([self._pending, samples])
        size = _CONTEXT_SIZE + WINDOW_SIZE
        if len(samples) < size:
            self._pending = samples
            return np.empty((0, WINDOW_SIZE), np.float32), np.empty(0, np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(samples, size)[::WINDOW_SIZE]
        self._pending = samples[len(windows) * WINDOW_SIZE :]
        probabilities, *self._state[:] = self.session.run(
            None,
            {"input": np.ascontiguousarray(windows), "h": self._state[0], "c": self._state[1]},
        )
        return windows[:, _CONTEXT_SIZE:], np.asarray(probabilities, np.float32).reshape(-1)


def load_session() -> Any:
    """Return the ONNX session of the detector.

    Raises:
        DependencyError: faster-whisper is not installed, or has another detector.
    """
    spec = find_spec("faster_whisper")
    path = Path((spec and spec.origin) or "").parent / "assets/silero_vad_v6.onnx"
    if spec is None or not path.is_file():
        raise DependencyError(
            "voice activity detection needs faster-whisper 1.2 or later: "
            "pip install 'talkinghead[offline]'"
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
