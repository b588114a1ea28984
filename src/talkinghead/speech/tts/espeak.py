"""Text to speech by eSpeak NG, with the times of its phonemes."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Annotated

from talkinghead.errors import UsageError
from talkinghead.speech.tts.command import CommandTextToSpeech
from talkinghead.value_rules import PositiveFloat, Range

log = logging.getLogger(__name__)

_PROGRAM = "espeak-ng"
# -I and -S: the script needs the standard library only, and no module of the working directory.
_TIMED = [sys.executable, "-I", "-S", str(Path(__file__).with_name("espeak_program.py"))]
_LIBRARIES = ("libespeak-ng.so.1", "libespeak-ng.dylib", "libespeak-ng.dll", "espeak-ng.dll")


class Espeak(CommandTextToSpeech):
    """The voices of eSpeak NG, a system program: over a hundred languages, fast and synthetic.

    The program does not tell the times of its phonemes. Its library (GPL-3) does, and is therefore
    loaded by a script that runs as a separate process for each sentence; it is never loaded into
    this process. Without the library, the program is used and there are no phonemes.

    Safe for concurrent callers, whose sentences are separate processes.

    Args:
        voice: Voice from `espeak-ng --voices`, optionally with + and a variant from `espeak-ng
            --voices=variant`, such as en-us+f3.
        words_per_minute: Speaking rate, 80 to 450.
        pitch: Pitch, 0 to 99.
        timeout_s: Maximum time in seconds for each sentence.

    Raises:
        DependencyError: eSpeak NG is missing.
        UsageError: There is no such voice, or an option is out of range.

    Example:
        >>> for speech in Espeak("en-gb").speak_timed("Hello."):
        ...     print(len(speech.samples), speech.phonemes[0])
    """

    def __init__(
        self,
        voice: str = "en-us",
        *,
        words_per_minute: Annotated[int, Range(80, 450)] = 160,
        pitch: Annotated[int, Range(0, 99)] = 50,
        timeout_s: PositiveFloat = 30.0,
    ) -> None:
        if not (80 <= words_per_minute <= 450 and 0 <= pitch <= 99):
            raise UsageError(
                f"tts=espeak got words_per_minute={words_per_minute} and pitch={pitch}; expected "
                "80 to 450 words per minute and a pitch of 0 to 99"
            )
        rate, height = str(words_per_minute), str(pitch)
        library = _find_timed_library(timeout_s)
        if library is None:
            options = ("-s", rate, "-p", height, "-w", "{output}")
            command = [_PROGRAM, "--stdin", "-v", "{voice}", *options]
        else:
            command = [*_TIMED, library, "{voice}", rate, height, "{output}", "{phonemes}"]
        super().__init__(
            command,
            program=_PROGRAM,
            voice=voice,
            list_voices=[_PROGRAM, "--voices"],
            voice_pattern=r"^\s*\d+\s+(\S+)",
            language=voice,
            install=f"apt install {_PROGRAM} (Debian, Ubuntu), brew install {_PROGRAM} (macOS)",
            timeout_s=timeout_s,
        )


def _find_timed_library(timeout_s: float) -> str | None:
    """Return the name or the path of the library; None without the program or the library.

    A library that does not load in `timeout_s` is not used.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        return None
    folder = Path(program).resolve().parent
    beside = (each / name for each in (folder, folder.parent / "lib") for name in _LIBRARIES)
    library = next((str(path) for path in beside if path.is_file()), find_library(_PROGRAM))
    if library is None:
        log.info("tts=espeak: no phonemes for the lips: the library of %s was not found", _PROGRAM)
        return None
    # A library of another architecture, or without its data, must not prevent speech.
    try:
        loaded = subprocess.run(  # noqa: S603
            [*_TIMED, library],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        log.info("tts=espeak: no phonemes for the lips: %s loads for %g s", library, timeout_s)
        return None
    if loaded.returncode:
        reason = (loaded.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        log.info("tts=espeak: no phonemes for the lips: %s: %s", library, reason)
        return None
    return library
