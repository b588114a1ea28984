"""Text to speech by Piper in a separate process, without a network.

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
from talkinghead.speech.tts.text_cleaner import TextCleaner
from talkinghead.types import FloatArray

# Interval at which output and cancellation are checked.
_POLL_S = 0.02


class Piper:
    """A Piper voice. Piper (GPL-3) is never imported and runs as a separate process.

    The process starts with this object and loads its voice once. It reads one sentence per line,
    writes one WAV file per sentence and reports each file: its raw output stream does not mark the
    end of a sentence. The process ends with this object, with `close`, with the interpreter, and
    after a sentence that is cancelled or exceeds the timeout; it is restarted when needed.

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
        timeout_s: Maximum time in seconds for each sentence, including loading before the first.

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
        length_scale: float | None = None,
        noise_scale: float | None = None,
        noise_w_scale: float | None = None,
        device: str = "cpu",
        command: Sequence[str] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        options = ("--length-scale", "--noise-scale", "--noise-w-scale")
        scales = zip(options, (length_scale, noise_scale, noise_w_scale), strict=True)
        given = {option: scale for option, scale in scales if scale is not None}
        too_small = length_scale == 0 or min(given.values(), default=1) < 0 or timeout_s <= 0
        if device not in ("cpu", "cuda") or too_small:
            raise UsageError(
                f"tts=piper got device={device}, timeout_s={timeout_s} and {given}; expected cpu "
                "or cuda, and numbers above zero (noise may be zero)"
            )
        # Keep symbolic links: in a Hugging Face cache they point to files with other names.
        path = packaged.voice("joe") if str(voice) == "packaged" else Path(voice).absolute()
        config = _read_config(path)
        self.sample_rate = int(config["audio"]["sample_rate"])
        self._command = [
            *(_installed() if command is None else command),
            *("--model", str(path)),
            # Otherwise Piper scales every sentence to full scale, so that short ones are louder.
            "--no-normalize",
            *(("--speaker", str(_speaker(speaker, config, path))) if speaker is not None else ()),
            *(word for option, scale in given.items() for word in (option, str(scale))),
            *(("--cuda",) if device == "cuda" else ()),
        ]
        self._timeout_s = timeout_s
        self._cleaner = TextCleaner(config.get("espeak", {}).get("voice"))
        self._process = _Process(self._command)

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """Yield the speech of a text, one chunk per sentence."""
        cancel = cancel or Event()
        for sentence in self._cleaner.sentences(text):
            samples = None if cancel.is_set() else self._synthesise(sentence, cancel)
            if samples is None:
                return
            yield samples

    def close(self) -> None:
        """End the process; a later call of `speak` starts a new process."""
        self._process.end()

    def _synthesise(self, sentence: str, cancel: Event) -> FloatArray | None:
        """Return the speech of a sentence, or None after cancellation."""
        if not self._process.is_running:
            self._process = _Process(self._command)
        self._process.write(sentence)
        until_s = time.monotonic() + self._timeout_s
        while time.monotonic() < until_s:
            if cancel.is_set():
                # Start the next process now, so that the voice is loaded before the next sentence.
                self._process.end()
                self._process = _Process(self._command)
                return None
            samples = self._process.read(_POLL_S)
            if samples is not None:
                return samples
        self._process.end()
        raise SpeechError(
            f"piper took longer than {self._timeout_s:g} s for {sentence[:40]!r}: raise "
            "tts.timeout_s, or choose a smaller voice"
        )


class _Process:
    """A running Piper process that reads lines of text and writes one audio file per line."""

    def __init__(self, command: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="talkinghead-")
        self._path = re.compile(re.escape(self._folder.name) + r"/\S+\.wav")
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - no shell is used
                [*command, "--output-dir", self._folder.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONUTF8": "1"},
                encoding="utf-8",
                errors="replace",
                # Start a new session, so that Ctrl-C does not stop Piper before the caller stops.
                start_new_session=True,
            )
        except OSError as error:
            self._folder.cleanup()
            raise DependencyError(f"{command[0]}: cannot be run ({error.strerror})") from error
        self._messages: SimpleQueue[str | None] = SimpleQueue()
        self._last_message = ""
        assert self._popen.stderr is not None
        Thread(target=_read_lines, args=(self._popen.stderr, self._messages), daemon=True).start()
        self.end = weakref.finalize(self, _end, self._popen, self._folder)

    @property
    def is_running(self) -> bool:
        return self.end.alive and self._popen.poll() is None

    def write(self, sentence: str) -> None:
        assert self._popen.stdin is not None
        # If the process has ended, `read` raises an error with the process's last message.
        with suppress(BrokenPipeError):
            self._popen.stdin.write(sentence + "\n")
            self._popen.stdin.flush()

    def read(self, timeout_s: float) -> FloatArray | None:
        """Return the speech of the next sentence, or None if the speech is not complete yet."""
        try:
            line = self._messages.get(timeout=timeout_s)
        except Empty:
            return None
        if line is None:
            self.end()
            raise SpeechError(
                f"piper ended: {self._last_message or 'no error message'}; check the voice, "
                "or choose tts=espeak"
            )
        self._last_message = line.strip()
        match = self._path.search(line)
        if match is None:
            return None
        path = Path(match[0])
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        path.unlink()
        return samples.astype(np.float32) / np.float32(2**15)


def _read_lines(stream: IO[str], messages: SimpleQueue[str | None]) -> None:
    for line in stream:
        messages.put(line)
    messages.put(None)


def _end(process: subprocess.Popen[str], folder: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    process.wait()
    with suppress(BrokenPipeError):
        if process.stdin is not None:
            process.stdin.close()
    folder.cleanup()


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
    number = names.get(str(speaker), speaker)
    if not (isinstance(number, int) and 0 <= number < num_speakers):
        known = ", ".join(names) or f"0 to {num_speakers - 1}"
        raise UsageError(f"tts.speaker={speaker}: unknown speaker; {path.name} has {known}")
    return number
