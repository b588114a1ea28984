"""Piper: natural voices that need no network, in a process of their own.

Paper: Kim et al., "Conditional Variational Autoencoder with Adversarial Learning for End-to-End
Text-to-Speech" (VITS), 2021, arXiv:2106.06103.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import wave
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import IO, Any

import numpy as np

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.runtime import packaged_weights as packaged
from talkinghead.speech.tts.speakable import Speakable
from talkinghead.types import FloatArray

PACKAGED = "packaged"
# How often a sentence is asked after, and whether it has been cancelled.
_POLL_S = 0.02


class Piper:
    """Speaks with Piper (GPL-3), which is never imported: it runs as a process of its own.

    The process starts with this object and loads its voice once. It is given a sentence a line,
    writes the sound of each as a file of its own, and says when it has: the raw sound that it can
    write to a pipe would not tell where a sentence ends. It ends with this object, with `close`,
    with the interpreter, and with a sentence that is cancelled or takes too long; where there is
    more to say, another is started.

    Args:
        voice: "packaged" (Joe, American English, of the `offline` extra), or the path of a voice's
            .onnx file, with its configuration, .onnx.json, beside it.
        speaker: of a voice with several: a name or a number; None is its first.
        length_scale: how long phonemes last: 1.25 speaks slower, 0.8 faster; None is the voice's.
        noise_scale: how much the sound varies; None is the voice's.
        noise_w_scale: how much the phonemes' lengths vary; None is the voice's.
        device: "cpu", or "cuda" (needs onnxruntime-gpu).
        command: a Piper that is installed apart, such as ["/opt/piper/bin/piper"]; None is this
            interpreter's.
        timeout_s: for each sentence, and for the voice's loading before the first.

    Raises:
        DependencyError: Piper or the packaged voice is missing.
        UsageError: the voice's files are missing or cannot be read, it has no such speaker, or an
            option is out of its range.
    """

    def __init__(
        self,
        voice: str | Path = PACKAGED,
        *,
        speaker: str | int | None = None,
        length_scale: float | None = None,
        noise_scale: float | None = None,
        noise_w_scale: float | None = None,
        device: str = "cpu",
        command: Sequence[str] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        scales = {
            "--length-scale": length_scale,
            "--noise-scale": noise_scale,
            "--noise-w-scale": noise_w_scale,
        }
        given = {option: scale for option, scale in scales.items() if scale is not None}
        too_small = length_scale == 0 or min(given.values(), default=1) < 0 or timeout_s <= 0
        if device not in ("cpu", "cuda") or too_small:
            raise UsageError(
                f"tts=piper got device={device}, timeout_s={timeout_s} and {given}; expected cpu "
                "or cuda, and numbers above zero (noise may be zero)"
            )
        # Not resolved: a hub's cache holds links to files with other names.
        path = packaged.voice("joe") if str(voice) == PACKAGED else Path(voice).absolute()
        config = _read_config(path)
        self.sample_rate = int(config["audio"]["sample_rate"])
        self._command = [
            *(_installed() if command is None else command),
            *("--model", str(path)),
            # Otherwise each sentence is brought to full scale: short ones would be the loudest.
            "--no-normalize",
            *(("--speaker", str(_speaker(speaker, config, path))) if speaker is not None else ()),
            *(word for option, scale in given.items() for word in (option, str(scale))),
            *(("--cuda",) if device == "cuda" else ()),
        ]
        self._timeout_s = timeout_s
        self._text = Speakable(config.get("espeak", {}).get("voice"))
        self._process = _Process(self._command)

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """See `TextToSpeech.speak`: a piece a sentence.

        Raises:
            SpeechError: Piper ended, or a sentence took longer than the timeout.
        """
        for sentence in self._text.sentences(text):
            samples = None if cancel and cancel.is_set() else self._say(sentence, cancel)
            if samples is None:
                return
            yield samples

    def close(self) -> None:
        """Ends the process. Who speaks after that starts another."""
        self._process.end()

    def _say(self, sentence: str, cancel: Event | None) -> FloatArray | None:
        """A sentence's sound; None where it was cancelled."""
        if not self._process.is_running:
            self._process = _Process(self._command)
        self._process.write(sentence)
        until_s = time.monotonic() + self._timeout_s
        while time.monotonic() < until_s:
            if cancel and cancel.is_set():
                # The next is loading its voice while the user still speaks.
                self._process.end()
                self._process = _Process(self._command)
                return None
            samples = self._process.read(_POLL_S)
            if samples is not None:
                return samples
        self._process.end()
        raise SpeechError(
            f"piper took longer than {self._timeout_s:g} s for {sentence[:40]!r}: give it more "
            "with tts.timeout_s, or a smaller voice"
        )


class _Process:
    """Piper, running: lines in, a file of sound for each out."""

    def __init__(self, command: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="talkinghead-")
        self._path = re.compile(re.escape(self._folder.name) + r"/\S+\.wav")
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - a list, never a shell
                [*command, "--output-dir", self._folder.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONUTF8": "1"},
                encoding="utf-8",
                errors="replace",
                # Ctrl-C is for whoever speaks with it.
                start_new_session=True,
            )
        except OSError as error:
            self._folder.cleanup()
            raise DependencyError(f"{command[0]}: cannot be run ({error.strerror})") from error
        self._told: SimpleQueue[str | None] = SimpleQueue()
        self._last = ""
        assert self._popen.stderr is not None
        Thread(target=_listen, args=(self._popen.stderr, self._told), daemon=True).start()
        self.end = weakref.finalize(self, _end, self._popen, self._folder)

    @property
    def is_running(self) -> bool:
        """Whether it can be given a sentence."""
        return self.end.alive and self._popen.poll() is None

    def write(self, sentence: str) -> None:
        """Gives it a sentence to say."""
        assert self._popen.stdin is not None
        # Where it has ended `read` tells why.
        with suppress(BrokenPipeError):
            self._popen.stdin.write(sentence + "\n")
            self._popen.stdin.flush()

    def read(self, timeout_s: float) -> FloatArray | None:
        """The next sentence's sound, None where it is not there yet."""
        try:
            line = self._told.get(timeout=timeout_s)
        except Empty:
            return None
        if line is None:
            self.end()
            raise SpeechError(
                f"piper ended: {self._last or 'it did not say why'}; check the voice, "
                "or choose tts=espeak"
            )
        self._last = line.strip()
        path = self._path.search(line)
        return _read_wav(Path(path[0])) if path else None


def _listen(stream: IO[str], told: SimpleQueue[str | None]) -> None:
    for line in stream:
        told.put(line)
    told.put(None)


def _end(process: subprocess.Popen[str], folder: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    process.wait()
    with suppress(BrokenPipeError):
        if process.stdin is not None:
            process.stdin.close()
    folder.cleanup()


def _read_wav(path: Path) -> FloatArray:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    path.unlink()
    return samples.astype(np.float32) / np.float32(2**15)


def _installed() -> list[str]:
    try:
        importlib.metadata.version("piper-tts")
    except importlib.metadata.PackageNotFoundError as error:
        raise DependencyError(
            "the package piper-tts (GPL-3) is not installed: pip install 'talkinghead[offline]', "
            "or choose tts=espeak, a program of the system"
        ) from error
    # -P: a file named piper.py in the folder where somebody works is not meant.
    return [sys.executable, "-P", "-m", "piper"]


def _read_config(path: Path) -> dict[str, Any]:
    beside = path.with_name(f"{path.name}.json")
    for file in (path, beside):
        if not file.is_file():
            raise UsageError(
                f"{file}: there is no such file; expected a voice of Piper, .onnx, with its "
                f".onnx.json beside it, or {PACKAGED}"
            )
    try:
        config = json.loads(beside.read_text("utf-8"))
        int(config["audio"]["sample_rate"])
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{beside}: is no configuration of a voice of Piper ({error})") from error
    return config


def _speaker(speaker: str | int, config: dict[str, Any], path: Path) -> int:
    """A speaker's number."""
    names: dict[str, int] = config.get("speaker_id_map") or {}
    num_speakers = int(config.get("num_speakers", 1))
    number = names.get(str(speaker), speaker)
    if not (isinstance(number, int) and 0 <= number < num_speakers):
        known = ", ".join(names) or f"0 to {num_speakers - 1}"
        raise UsageError(f"tts.speaker={speaker}: {path.name} has {known}")
    return number
