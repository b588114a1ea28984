"""Text to speech by an external program that writes audio, such as eSpeak NG or Flite."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from threading import Event

from talkinghead.errors import DependencyError, MediaError, SpeechError, UsageError
from talkinghead.media.atomic_file import temporary_folder
from talkinghead.media.audio_decoding import read_audio
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.speech.tts.phoneme_symbols import phonemes_of_program
from talkinghead.speech.tts.text.text_cleaner import TextCleaner
from talkinghead.types import FloatArray
from talkinghead.value_rules import PositiveFloat, PositiveInt

# Interval at which cancellation is checked while the program runs.
_POLL_S = 0.01
# Maximum size in bytes of a WAV file without samples.
_HEADER_BYTES = 48


class CommandTextToSpeech:
    """A text-to-speech program that is run for each sentence, with the text on standard input.

    Safe for concurrent callers, whose sentences are separate processes.

    Args:
        command: Program and arguments; `{voice}` and `{output}`, the WAV file to write, are
            replaced. Without `{output}` the audio is read from the program's standard output.
            `{phonemes}` is a text file to write with the phonemes, for the lips: on each line the
            time in seconds at which a phoneme begins, a tab, and its symbol (IPA), which is empty
            for a pause.
        program: Name of the program in messages; None is the first word of the command.
        sample_rate: Sample rate of the speech in Hz; the program's audio is resampled to it.
        voice: Name of one of the program's voices.
        list_voices: Program and arguments that list the voices; None accepts any voice.
        voice_pattern: Regular expression whose group is a voice's name in that list.
        language: Language code of the voice, see `TextCleaner`.
        install: Installation instructions, for the error if the program is missing.
        timeout_s: Maximum time in seconds for each sentence.

    Raises:
        DependencyError: The program is missing.
        UsageError: The program has no such voice, or an option is out of range.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        program: str | None = None,
        sample_rate: PositiveInt = 22_050,
        voice: str = "",
        list_voices: Sequence[str] | None = None,
        voice_pattern: str = r"(\S+)",
        language: str | None = None,
        install: str = "install it",
        timeout_s: PositiveFloat = 30.0,
    ) -> None:
        if not command or sample_rate <= 0 or timeout_s <= 0 or voice.startswith("-"):
            raise UsageError(
                f"got command={list(command)}, sample_rate={sample_rate}, voice={voice!r}, "
                f"timeout_s={timeout_s}; expected a program, numbers above zero, and a voice that "
                "does not begin with a hyphen"
            )
        if shutil.which(command[0]) is None:
            raise DependencyError(
                f"the program {command[0]} is not installed: {install}; or choose tts=piper, which "
                "comes with talkinghead[offline]"
            )
        if list_voices is not None:
            _check_voice(voice, list_voices, voice_pattern, timeout_s)
        self.sample_rate, self._program = sample_rate, program or command[0]
        self._command = [word.replace("{voice}", voice) for word in command]
        self._cleaner, self._timeout_s = TextCleaner(language), timeout_s

    def check_text(self, text: str) -> None:
        """Raise a `UsageError` if the voice cannot speak a text."""
        self._cleaner.check(text)

    @property
    def is_timed(self) -> bool:
        """Whether the program writes the phonemes."""
        return any("{phonemes}" in word for word in self._command)

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """Yield the speech of a text, one chunk per sentence."""
        for speech in self.speak_timed(text, cancel):
            yield speech.samples

    def speak_timed(self, text: str, cancel: Event | None = None) -> Iterator[TimedSpeech]:
        """Yield the speech of a text with the phonemes that the program writes."""
        cancel = cancel or Event()
        for sentence in self._cleaner.sentences(text):
            with temporary_folder() as folder:
                output, phonemes = Path(folder) / "speech.wav", Path(folder) / "phonemes.txt"
                self._run(sentence, output, phonemes, cancel)
                if cancel.is_set():
                    return
                samples = self._read(output)
                rows = self._read_phonemes(phonemes) if self.is_timed else []
            if samples is not None:
                timed = phonemes_of_program(rows, samples, self.sample_rate)
                yield TimedSpeech(samples, tuple(timed))

    def _run(self, sentence: str, output: Path, phonemes: Path, cancel: Event) -> None:
        """Write the speech and phonemes of a sentence; write nothing after cancellation."""
        files = {"{output}": str(output), "{phonemes}": str(phonemes)}
        command = [reduce(lambda w, f: w.replace(*f), files.items(), w) for w in self._command]
        # A pipe would need a thread: `communicate` loses an input that was not written in time.
        text = output.with_name("text.txt")
        text.write_bytes(f"{sentence}\n".encode())
        with (
            text.open("rb") as stdin,
            subprocess.Popen(  # noqa: S603 - no shell is used
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process,
        ):
            until_s = time.monotonic() + self._timeout_s
            while True:
                with suppress(subprocess.TimeoutExpired):
                    audio, errors = process.communicate(timeout=_POLL_S)
                    break
                if cancel.is_set():
                    process.kill()
                    return
                if time.monotonic() > until_s:
                    process.kill()
                    raise SpeechError(
                        f"{self._program} took longer than {self._timeout_s:g} s for "
                        f"{sentence[:40]!r}: raise tts.timeout_s"
                    )
        if process.returncode:
            message = errors.decode(errors="replace").strip() or "no error message"
            raise SpeechError(
                f"{self._program} failed with exit status {process.returncode}: "
                f"{message.splitlines()[-1]}"
            )
        if audio and not output.exists():
            output.write_bytes(audio)

    def _read(self, output: Path) -> FloatArray | None:
        """Return the audio of a file, or None if the file contains no samples."""
        try:
            if output.stat().st_size <= _HEADER_BYTES:
                return None
            return read_audio(output, self.sample_rate).samples
        except (OSError, MediaError) as error:
            raise SpeechError(
                f"{self._program} wrote no audio ({error}); expected a WAV file in {{output}}, "
                "or on its standard output"
            ) from error

    def _read_phonemes(self, path: Path) -> list[tuple[float, str]]:
        """Return the times and symbols of a file."""
        try:
            rows = [line.partition("\t") for line in path.read_text("utf-8").splitlines()]
            return [(float(time_s), symbol.strip()) for time_s, _, symbol in rows]
        except (OSError, ValueError) as error:
            raise SpeechError(
                f"{self._program} wrote no phonemes ({error}); expected lines of a time in "
                "seconds, a tab and a symbol in {phonemes}, or a command without {phonemes}"
            ) from error


def _check_voice(voice: str, command: Sequence[str], pattern: str, timeout_s: float) -> None:
    try:
        listed = subprocess.run(  # noqa: S603 - no shell is used
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SpeechError(f"{' '.join(command)}: cannot list the voices ({error})") from error
    # eSpeak accepts variants such as en-us+f3; Flite accepts the path of a voice file.
    if voice.partition("+")[0] not in listed.split() and not Path(voice).is_file():
        known = ", ".join(dict.fromkeys(re.findall(pattern, listed, re.MULTILINE)))
        raise UsageError(f"tts.voice={voice}: unknown voice; {command[0]} has {known}")
