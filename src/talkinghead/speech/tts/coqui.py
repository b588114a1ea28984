"""Text to speech by Coqui models in this process, with many languages and voice cloning.

Papers: Kim et al., VITS, 2021, arXiv:2106.06103; Casanova et al., "XTTS: a Massively Multilingual
Zero-Shot Text-to-Speech Model", 2024, arXiv:2406.04904.
"""

from __future__ import annotations

import difflib
import logging
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from talkinghead.concurrency import result_unless_cancelled
from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.predict.audio.phonemes import Phoneme, TimedSpeech
from talkinghead.runtime.device import resolve_device
from talkinghead.speech.tts.phoneme_symbols import phonemes_of
from talkinghead.speech.tts.text.text_cleaner import TextCleaner
from talkinghead.types import FloatArray

if TYPE_CHECKING:
    from TTS.api import TTS
    from TTS.utils.manage import ModelManager

log = logging.getLogger(__name__)

_NON_COMMERCIAL = re.compile(r"\bNC\b|CPML", re.IGNORECASE)
# Errors that may be raised by a model, or while the model and its configuration are read.
_ERRORS = (
    *(OSError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError),
    *(LookupError, EOFError, ImportError, pickle.UnpicklingError),
)


class Coqui:
    """A text-to-speech voice from Coqui's catalogue or from a local model.

    Safe for concurrent callers, whose sentences are synthesised in order of arrival. A cancelled
    caller returns at once; the model still completes the sentence that it has begun. A warning is
    logged if the model's licence forbids commercial use (XTTS, YourTTS, the fast_pitch model of
    VCTK, all of fairseq).

    A model that aligns phonemes with its speech gives their times, a model of letters does not.

    Args:
        model: Name such as "tts_models/en/ljspeech/vits", which is downloaded once, or the path of
            a checkpoint or of a folder with one.
        config_path: Configuration of a local model; None uses config.json beside the model.
        speaker: Name of a speaker, for a model with several speakers; the error for an unknown name
            lists them.
        language: Language code, for a model with several languages.
        speaker_wav: Path or list of paths of recordings of a voice to clone, with its mood, for
            models that support it; no model takes an emotion by name.
        device: Device to run on: "auto", "cpu", "cuda" or another torch device.
        options: Further arguments of the model, such as XTTS's {"speed": 1.1, "temperature": 0.7}.

    Raises:
        DependencyError: coqui-tts is missing, or the model cannot be downloaded.
        UsageError: The model, the speaker or the language is unknown, a file is missing or cannot
            be loaded, or the model's terms were not accepted.
    """

    def __init__(
        self,
        model: str | Path = "tts_models/en/ljspeech/vits",
        *,
        config_path: str | Path | None = None,
        speaker: str | None = None,
        language: str | None = None,
        speaker_wav: str | Path | Sequence[str | Path] | None = None,
        device: str = "auto",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        samples = [speaker_wav] if isinstance(speaker_wav, str | Path) else list(speaker_wav or [])
        if missing := [str(path) for path in samples if not Path(path).is_file()]:
            raise UsageError(f"tts.speaker_wav: there is no file {', '.join(missing)}")
        self._tts = _load(model, config_path).to(resolve_device(device))
        self._arguments = {
            "speaker": speaker,
            "language": language,
            "speaker_wav": [str(path) for path in samples] or None,
            **(options or {}),
        }
        _check_choice("speaker", speaker, self._tts.speakers, optional=bool(samples))
        _check_choice("language", language, self._tts.languages)
        synthesizer: Any = self._tts.synthesizer
        self.sample_rate = int(synthesizer.output_sample_rate)
        self._model: Any = synthesizer.tts_model
        tokenizer = getattr(self._model, "tokenizer", None)
        has_phonemes = bool(getattr(tokenizer, "use_phonemes", False))
        self.is_timed = has_phonemes and hasattr(self._model, "inference")
        code = language or synthesizer.tts_config.get("phoneme_language")
        if not code and (name := re.match("tts_models/([^/]+)/", str(model))):
            code = name[1] if name[1] != "multilingual" else None
        self._cleaner = TextCleaner(code)
        # A thread with a queue serves callers in order of arrival. A lock would not: a caller with
        # several sentences would take it again before the others wake up.
        self._worker = ThreadPoolExecutor(1, "coqui")

    def check_text(self, text: str) -> None:
        """Raise a `UsageError` if the voice cannot speak a text."""
        self._cleaner.check(text)

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """Yield the speech of a text, one chunk per sentence."""
        for speech in self.speak_timed(text, cancel):
            yield speech.samples

    def speak_timed(self, text: str, cancel: Event | None = None) -> Iterator[TimedSpeech]:
        """Yield the speech of a text with its phonemes, one chunk per sentence."""
        cancel = cancel or Event()
        for sentence in self._cleaner.sentences(text):
            if cancel.is_set():
                return
            synthesis = self._worker.submit(self._synthesise, sentence)
            speech = result_unless_cancelled(synthesis, cancel)
            if speech is None:
                return
            yield speech

    def _synthesise(self, sentence: str) -> TimedSpeech:
        from TTS.utils.synthesizer import PAD_SILENCE_SAMPLES

        recording: AbstractContextManager[list[tuple[Any, Any]]] = (
            _recorded_inference(self._model) if self.is_timed else nullcontext([])
        )
        try:
            with recording as records:
                samples = self._tts.tts(sentence, split_sentences=False, **self._arguments)
            phonemes = _phonemes(self._model, *records[-1]) if records else ()
        except _ERRORS as error:
            raise SpeechError(
                f"tts=coqui failed on {sentence[:40]!r}: {_reason(error)}; try another model or "
                "other options"
            ) from error
        # Remove the half second of silence that coqui-tts adds to each sentence.
        return TimedSpeech(np.asarray(samples, np.float32)[:-PAD_SILENCE_SAMPLES], phonemes)


@contextmanager
def _recorded_inference(model: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Record the symbols, int [T], and the outputs of the calls of a model's `inference`."""
    records: list[tuple[Any, Any]] = []
    inference = model.inference

    def recorded(ids: Any, *arguments: Any, **options: Any) -> Any:
        records.append((ids, inference(ids, *arguments, **options)))
        return records[-1][1]

    model.inference = recorded
    try:
        yield records
    finally:
        del model.inference


def _phonemes(model: Any, ids: Any, outputs: Any) -> tuple[Phoneme, ...]:
    """Return the phonemes of a recorded sentence; none if the model returned no alignment.

    Models with predicted durations (VITS, Glow-TTS, FastPitch and others) and with attention
    (Tacotron) return the alignment of their symbols with their output, which the library discards.
    """
    found = outputs if isinstance(outputs, dict) else {}
    alignment, output = found.get("alignments"), found.get("model_outputs")
    if alignment is None or output is None:
        return ()
    numbers = ids.reshape(-1).tolist()
    weights = alignment[0].detach().float().cpu().numpy().squeeze()
    if weights.ndim != 2 or len(numbers) not in weights.shape:
        return ()
    # [T, steps] or [steps, T]; there are at least as many steps as symbols.
    steps = weights.sum(1) if weights.shape[0] == len(numbers) else weights.sum(0)
    audio = model.config.audio
    samples = output[0].squeeze()
    # A spectrogram has a row for each hop; a step of an attention may span several rows.
    num_samples = len(samples) * (1 if samples.ndim == 1 else int(audio["hop_length"]))
    rate = int(audio["sample_rate"])
    step_s = num_samples / max(float(steps.sum()), 1e-6) / rate
    times_s = np.append(0.0, np.cumsum(steps)) * step_s
    # Blanks, padding, beginnings and ends have names of several letters, such as <BLNK>.
    names = (model.tokenizer.characters.id_to_char(number) for number in numbers)
    symbols = [name if len(name) == 1 else "_" for name in names]
    return tuple(phonemes_of(symbols, times_s.tolist()))


def _load(model: str | Path, config_path: str | Path | None) -> TTS:
    try:
        from TTS.api import TTS
        from TTS.utils.manage import ModelManager
    except ImportError as error:
        raise DependencyError(
            f"tts=coqui needs the package coqui-tts ({_reason(error)}): pip install "
            "'talkinghead[speech]', or choose tts=piper, which works offline"
        ) from error
    if not Path(model).exists():
        # Suppress the tracebacks that the library logs before it raises an exception.
        logging.getLogger("TTS.utils.manage").setLevel(logging.CRITICAL)
        _check_licence(str(model), ModelManager(progress_bar=False))
        try:
            return TTS(str(model), progress_bar=False)
        except _ERRORS as error:
            raise DependencyError(
                f"{model}: cannot be downloaded or loaded ({_reason(error)}); give the path of a "
                "model on the disk, or choose tts=piper, which works offline"
            ) from error
    folder = Path(model) if Path(model).is_dir() else Path(model).parent
    config = folder / "config.json" if config_path is None else Path(config_path)
    if not config.is_file():
        raise UsageError(f"{config}: there is no such file; give its path in tts.config_path")
    try:
        tts = TTS(model_path=str(model), config_path=str(config), progress_bar=False)
    except _ERRORS as error:
        reason = _reason(error)
        raise UsageError(f"{model}: cannot be loaded as a model of Coqui ({reason})") from error
    if "xtts" in str(getattr(tts.config, "model", "")):
        _warn(str(model), "CPML")
    return tts


def _check_licence(name: str, manager: ModelManager) -> None:
    """Raise a UsageError for a name not in the catalogue or terms that were not accepted."""
    kind, language, dataset, model = ([*name.split("/"), "", "", ""])[:4]
    if kind == "tts_models" and language and (dataset, model) == ("fairseq", "vits"):
        # Meta's MMS voices, of which there are over a thousand, are not in the catalogue.
        _warn(name, "CC BY-NC 4.0")
        return
    entry = manager.models_dict["tts_models"].get(language, {}).get(dataset, {}).get(model)
    if kind != "tts_models" or entry is None:
        near = difflib.get_close_matches(name, manager.list_tts_models(), 5, 0.3)
        raise UsageError(
            f"tts.model={name}: there is no such file, and no such model in Coqui's catalogue; it "
            f"has {', '.join(near)} ... (all: `tts --list_models`)"
        )
    if not manager.tos_agreed(entry, Path(manager.output_prefix) / name.replace("/", "--")):
        raise UsageError(
            f"tts.model={name}: its terms (CPML, https://tts-hub.github.io/cpml) forbid commercial "
            "use; read them, and agree by setting COQUI_TOS_AGREED=1 in the environment, or choose "
            "another model"
        )
    licence = entry.get("license") or "not stated"
    if _NON_COMMERCIAL.search(licence):
        _warn(name, licence)
    else:
        log.info("%s: its licence is %s", name, licence)


def _warn(model: str, licence: str) -> None:
    log.warning("%s: its licence, %s, forbids commercial use", model, licence)


def _check_choice(
    key: str, chosen: str | None, known: Sequence[str] | None, optional: bool = False
) -> None:
    """Raise a UsageError for an unknown choice; `known` is None if the model has no choices."""
    if known is None and chosen is not None:
        raise UsageError(f"tts.{key}={chosen}: the model has one {key} only; leave it out")
    if known and not optional and chosen not in known:
        raise UsageError(f"tts.{key}={chosen}: the model has {', '.join(known)}")


def _reason(error: BaseException) -> str:
    """Return the last line of an error's message, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:160]
