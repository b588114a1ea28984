"""Any program that writes sound, such as eSpeak NG or Flite, as a voice."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

from talkinghead.errors import DependencyError, MediaError, SpeechError, UsageError
from talkinghead.media.audio_decoding import read_audio
from talkinghead.speech.tts.speakable import Speakable
from talkinghead.types import FloatArray

# How often it is asked whether a running sentence has been cancelled.
_POLL_S = 0.02
# A WAV file's header, before any sound.
_HEADER_BYTES = 48


class Command:
    """Runs a program for each sentence: text goes in by its standard input, never as an option.

    Args:
        command: the program and its arguments; `{voice}` and `{output}`, the WAV file to write,
            are replaced. Without `{output}` the sound is read from its standard output.
        sample_rate: of what `speak` gives, in Hz; what the program writes is brought to it.
        voice: one of the program's voices.
        list_voices: the program and its arguments that list them; None takes any.
        voice_pattern: a regular expression whose group is a voice's name in that list.
        language: a code of what the voice speaks, see `Speakable`.
        install: how the program is installed, for who has not.
        timeout_s: for each sentence.

    Raises:
        DependencyError: the program is missing.
        UsageError: the program does not know the voice, or an option is out of its range.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        sample_rate: int = 22_050,
        voice: str = "",
        list_voices: Sequence[str] | None = None,
        voice_pattern: str = r"(\S+)",
        language: str | None = None,
        install: str = "install it",
        timeout_s: float = 30.0,
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
        self.sample_rate = sample_rate
        self._command = [word.replace("{voice}", voice) for word in command]
        self._text, self._timeout_s = Speakable(language), timeout_s

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """See `TextToSpeech.speak`: a piece a sentence.

        Raises:
            SpeechError: the program failed, took longer than the timeout, or wrote no sound.
        """
        for sentence in self._text.sentences(text):
            with tempfile.TemporaryDirectory(prefix="talkinghead-") as folder:
                output = Path(folder) / "speech.wav"
                if not self._run(sentence, output, cancel):
                    return
                samples = self._read(output)
            if samples is not None:
                yield samples

    def _run(self, sentence: str, output: Path, cancel: Event | None) -> bool:
        """Writes a sentence's sound to a file; False where it was cancelled."""
        command = [word.replace("{output}", str(output)) for word in self._command]
        with subprocess.Popen(  # noqa: S603 - a list, never a shell
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            given: bytes | None = f"{sentence}\n".encode()
            until_s = time.monotonic() + self._timeout_s
            while True:
                try:
                    sound, told = process.communicate(given, timeout=_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    given = None
                cancelled = cancel is not None and cancel.is_set()
                if cancelled or time.monotonic() > until_s:
                    process.kill()
                    if cancelled:
                        return False
                    raise SpeechError(
                        f"{command[0]} took longer than {self._timeout_s:g} s for "
                        f"{sentence[:40]!r}: give it more with tts.timeout_s"
                    )
        if process.returncode:
            raise SpeechError(f"{command[0]} failed ({process.returncode}): {_last_line(told)}")
        if sound and not output.exists():
            output.write_bytes(sound)
        return True

    def _read(self, output: Path) -> FloatArray | None:
        """The sound in a file; None where nothing was said."""
        try:
            if output.stat().st_size <= _HEADER_BYTES:
                return None
            return read_audio(output, self.sample_rate).samples
        except (OSError, MediaError) as error:
            raise SpeechError(
                f"{self._command[0]} wrote no sound ({error}); expected a WAV file in {{output}}, "
                "or on its standard output"
            ) from error


def _check_voice(voice: str, command: Sequence[str], pattern: str, timeout_s: float) -> None:
    try:
        listed = subprocess.run(  # noqa: S603 - a list, never a shell
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
    # A variant of eSpeak's: en-us+f3. And Flite takes the file of a voice.
    if voice.partition("+")[0] not in listed.split() and not Path(voice).is_file():
        known = ", ".join(dict.fromkeys(re.findall(pattern, listed, re.MULTILINE)))
        raise UsageError(f"tts.voice={voice}: {command[0]} has {known}")


def _last_line(told: bytes) -> str:
    lines = told.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it did not say why"
