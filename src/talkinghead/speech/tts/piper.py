"""Text to speech by Piper in a separate process, without a network.

Paper: Kim et al., "Conditional Variational Autoencoder with Adversarial Learning for End-to-End
Text-to-Speech" (VITS), 2021, arXiv:2106.06103.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Lock
from typing import Any

from talkinghead.errors import DependencyError, UsageError
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.runtime import packaged_weights as packaged
from talkinghead.speech.tts.piper_phonemes import read_phonemes, timed_voice
from talkinghead.speech.tts.piper_pool import PiperPool
from talkinghead.speech.tts.text.text_cleaner import TextCleaner
from talkinghead.types import FloatArray
from talkinghead.value_rules import NonNegativeFloat, PositiveFloat, PositiveInt


class Piper:
    """A Piper voice. Piper (GPL-3) is never imported and runs as a separate process.

    Safe for concurrent callers: each sentence is passed to a free process, and a cancellation stops
    its own caller only. One process starts with this object and loads its voice once; others are
    started for concurrent callers, and ended after a minute without work. All end with this object,
    with `close` and with the interpreter. A process that exceeds the timeout is replaced.

    A process reads one sentence per line, writes one WAV file per sentence and reports each file:
    its raw output stream does not mark the end of a sentence. With the package onnx and Piper's own
    program, the phonemes of the speech are known (see `piper_phonemes.py`).

    Args:
        voice: "packaged" (Joe, American English, of the `offline` extra), or the path of a voice's
            .onnx file with its configuration, .onnx.json, beside it.
        speaker: Name or number of a speaker, for a voice with several; None is the first.
        length_scale: Phoneme duration relative to normal: 1.25 is slower, 0.8 faster; None is the
            voice's default.
        noise_scale: Variation of the audio; None is the voice's default.
        noise_w_scale: Variation of the phoneme durations; None is the voice's default.
        device: "cpu", or "cuda" (needs onnxruntime-gpu).
        command: Command of another Piper installation, such as ["/opt/piper/bin/piper"]; None is
            the one of this Python environment.
        timeout_s: Maximum time in seconds for a sentence; for the first, including loading.
        max_processes: Maximum number of processes, each with its own copy of the voice in memory;
            further callers wait for a free process.

    Raises:
        DependencyError: Piper or the packaged voice is missing.
        UsageError: The voice's files are missing or cannot be read, the voice has no such speaker,
            or an option is out of range.
    """

    def __init__(
        self,
        voice: str | Path = "packaged",
        *,
        speaker: str | int | None = None,
        length_scale: PositiveFloat | None = None,
        noise_scale: NonNegativeFloat | None = None,
        noise_w_scale: NonNegativeFloat | None = None,
        device: str = "cpu",
        command: Sequence[str] | None = None,
        timeout_s: PositiveFloat = 60.0,
        max_processes: PositiveInt = 4,
    ) -> None:
        options = ("--length-scale", "--noise-scale", "--noise-w-scale")
        scales = zip(options, (length_scale, noise_scale, noise_w_scale), strict=True)
        given = {option: scale for option, scale in scales if scale is not None}
        too_small = length_scale == 0 or min(given.values(), default=1) < 0 or timeout_s <= 0
        if device not in ("cpu", "cuda") or too_small or max_processes < 1:
            raise UsageError(
                f"tts=piper got device={device}, timeout_s={timeout_s}, "
                f"max_processes={max_processes} and {given}; expected cpu or cuda, and numbers "
                "above zero (noise may be zero)"
            )
        # Keep symbolic links: in a Hugging Face cache they point to files with other names.
        path = packaged.voice("joe") if str(voice) == "packaged" else Path(voice).absolute()
        config = self._config = _read_config(path)
        self.sample_rate = int(config["audio"]["sample_rate"])
        timed = timed_voice(path, config) if command is None else None
        self.is_timed = timed is not None
        self._command = [
            *(_installed() if command is None else command),
            *("--model", str(timed or path)),
            # By default, Piper scales every sentence to full scale, so short sentences are louder.
            "--no-normalize",
            *(("--speaker", str(_speaker(speaker, config, path))) if speaker is not None else ()),
            *(word for option, scale in given.items() for word in (option, str(scale))),
            *(("--cuda",) if device == "cuda" else ()),
        ]
        self._timeout_s = timeout_s
        self._cleaner = TextCleaner(config.get("espeak", {}).get("voice"))
        self._lock, self._max_processes = Lock(), max_processes
        self._pool = self._new_pool()

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
            samples = None if cancel.is_set() else self._open_pool().speak(sentence, cancel)
            if samples is None:
                return
            yield read_phonemes(samples, self._config) if self.is_timed else TimedSpeech(samples)

    def close(self) -> None:
        """End the processes, also those in use; a later call of `speak` starts a new process."""
        self._pool.close()

    def _open_pool(self) -> PiperPool:
        with self._lock:
            if self._pool.is_closed:
                self._pool = self._new_pool()
            return self._pool

    def _new_pool(self) -> PiperPool:
        pool = PiperPool(self._command, self._max_processes, self._timeout_s)
        weakref.finalize(self, pool.close)
        return pool


def _installed() -> list[str]:
    try:
        importlib.metadata.version("piper-tts")
    except importlib.metadata.PackageNotFoundError as error:
        raise DependencyError(
            "the package piper-tts (GPL-3) is not installed: pip install 'talkinghead[offline]', "
            "or choose tts=espeak, a program of the system"
        ) from error
    # -P prevents the import of a file named piper.py in the working directory.
    return [sys.executable, "-P", "-m", "piper"]


def _read_config(path: Path) -> dict[str, Any]:
    config_path = path.with_name(f"{path.name}.json")
    for file in (path, config_path):
        if not file.is_file():
            raise UsageError(
                f"{file}: there is no such file; expected a Piper voice, .onnx, with its "
                f".onnx.json beside it, or packaged"
            )
    try:
        config = json.loads(config_path.read_text("utf-8"))
        int(config["audio"]["sample_rate"])
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{config_path}: is not the configuration of a Piper voice ({error})"
        ) from error
    return config


def _speaker(speaker: str | int, config: dict[str, Any], path: Path) -> int:
    """Return the number of the speaker with the given name or number."""
    names: dict[str, int] = config.get("speaker_id_map") or {}
    num_speakers = int(config.get("num_speakers", 1))
    # The command line passes numbers as text, because names may consist of digits.
    number = names.get(str(speaker), int(speaker) if str(speaker).isdecimal() else speaker)
    if not (isinstance(number, int) and 0 <= number < num_speakers):
        known = ", ".join(names) or f"0 to {num_speakers - 1}"
        raise UsageError(f"tts.speaker={speaker}: unknown speaker; {path.name} has {known}")
    return number
