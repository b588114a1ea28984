"""Load Whisper models with faster-whisper, and compute encoder features of speech.

Paper: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022,
arXiv:2212.04356.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from talkinghead.errors import DependencyError, SpeechError
from talkinghead.runtime import packaged_weights
from talkinghead.types import FloatArray
from talkinghead.value_rules import PositiveInt

log = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
"""Sample rate of a Whisper model's input in Hz."""
ENCODED_HZ = 50
"""Frame rate of the features returned by `WhisperEncoder.encode`."""
COMPUTE_TYPES = {"cpu": "int8", "cuda": "float16"}
"""Default CTranslate2 number format of each supported device."""

# Silence after short speech, and the smallest input, in mel frames of 10 ms. With an input of 10 s,
# Whisper stopped after the first word of a short question in 15 % of the trials.
_PADDING_FRAMES, _MIN_FRAMES = 500, 1500
_MODEL_FILES = ("model.bin", "config.json", "tokenizer.json")
# Models in use, keyed by the arguments of `load_whisper`. CTranslate2 allows concurrent calls.
_models: MutableMapping[tuple[str, str, str, int], Any] = WeakValueDictionary()


class WhisperEncoder:
    """The encoder of a Whisper model.

    Args:
        model: "packaged" (the base model of the `offline` extra), a folder written by
            ct2-transformers-converter, or a name such as "small" or "large-v3", which is downloaded
            once from the Hugging Face hub.
        device: "cpu", or "cuda" (needs cuBLAS of CUDA 12).
        compute_type: CTranslate2 number format, such as "int8"; None is int8 on a CPU and float16
            on CUDA.
        num_threads: Number of CPU threads; None is OMP_NUM_THREADS, or up to four.

    Raises:
        DependencyError: faster-whisper or the model is missing, or the model cannot be used.

    Example:
        >>> WhisperEncoder().encode(np.zeros((1, 16_000), np.float32)).shape
        (1, 50, 512)
    """

    def __init__(
        self,
        model: str | Path = "packaged",
        *,
        device: str = "cpu",
        compute_type: str | None = None,
        num_threads: PositiveInt | None = None,
    ) -> None:
        self._model = load_whisper(model, device, compute_type, num_threads)

    def encode(self, clips: FloatArray) -> FloatArray:
        """Return the features of audio clips of equal length: float32 [N, num_frames, D], 50 Hz.

        The clips are not padded to 30 s, so the cost is proportional to their length.

        Args:
            clips: float32 [N, num_samples] in [-1, 1], mono, 16 kHz, up to 30 s.

        Raises:
            SpeechError: The encoder failed, for instance because memory is exhausted.
        """
        from ctranslate2 import StorageView

        extract = self._model.feature_extractor
        num_frames = 2 * (clips.shape[1] * ENCODED_HZ // SAMPLE_RATE)
        mels = np.stack([extract(clip, padding=0)[:, :num_frames] for clip in clips])
        try:
            mels = StorageView.from_array(np.ascontiguousarray(mels, np.float32))
            features = self._model.model.encode(mels, to_cpu=True)
        except RuntimeError as error:
            raise SpeechError(
                f"the Whisper encoder failed ({error}): free memory, or choose lip_prior=none"
            ) from error
        return np.asarray(features).astype(np.float32)


def load_whisper(
    model: str | Path, device: str, compute_type: str | None, num_threads: int | None
) -> Any:
    """Return a faster-whisper model; see `WhisperEncoder` for the arguments.

    A model that is in use already is shared, because loading takes a second and 150 MB.
    Short speech is padded to 15 s instead of 30 s, which makes its transcription several times
    faster.

    Raises:
        DependencyError: faster-whisper or the model is missing, or the model cannot be used.
    """
    compute_type = compute_type or COMPUTE_TYPES.get(device, "default")
    key = str(model), device, compute_type, num_threads or 0
    whisper_model = _whisper_model()
    if (shared := _models.get(key)) is None:
        shared = _models[key] = _load(whisper_model, *key)
    return shared


def _load(
    whisper_model: type[Any], model: str, device: str, compute_type: str, num_threads: int
) -> Any:
    files = None
    if model == "packaged":
        files = packaged_weights.whisper_base()
    elif Path(model).is_dir():
        missing = [name for name in _MODEL_FILES if not (Path(model) / name).is_file()]
        if missing:
            raise DependencyError(
                f"the Whisper model {model} has no {', '.join(missing)}; expected the output of "
                "ct2-transformers-converter with --copy_files tokenizer.json, or "
                "model=packaged"
            )
    else:
        log.info("Whisper %s: downloading from the Hugging Face hub unless it is cached", model)
    try:
        return whisper_model(
            model,
            files=files,
            device=device,
            compute_type=compute_type,
            cpu_threads=num_threads,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DependencyError(
            f"the Whisper model {model} cannot be used with device={device} and compute_type="
            f"{compute_type} ({reason}); a name is downloaded once from the Hugging Face hub. "
            "Offline: model=packaged or a folder, and device=cpu"
        ) from error


def _whisper_model() -> Any:
    """Return a subclass of `WhisperModel` that pads short speech less."""
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise DependencyError(
            f"Whisper needs faster-whisper ({error}): pip install 'talkinghead[offline]'"
        ) from error

    class ShortPaddingModel(WhisperModel):
        def encode(self, features: FloatArray) -> Any:
            # faster-whisper pads the features with zeros to 30 s.
            is_used = np.any(features != 0, axis=tuple(range(features.ndim - 1)))
            num_used = int(np.flatnonzero(is_used)[-1]) + 1 if is_used.any() else 0
            num_frames = max(_MIN_FRAMES, num_used + _PADDING_FRAMES + num_used % 2)
            return super().encode(np.ascontiguousarray(features[..., :num_frames]))

    return ShortPaddingModel
