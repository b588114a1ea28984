"""Speak the text on standard input with the library of eSpeak NG, and write its phonemes.

    python espeak_program.py LIBRARY                                      test the library
    python espeak_program.py LIBRARY VOICE RATE PITCH OUTPUT PHONEMES     speak

OUTPUT is a WAV file. PHONEMES is a text file with a line for each phoneme: the time in seconds at
which it begins, a tab, and its symbol in the International Phonetic Alphabet, which is empty for a
pause. The script is run as a separate process and imports the standard library only.
"""

from __future__ import annotations

import ctypes
import sys
import wave
from pathlib import Path

# Constants of speak_lib.h.
_RETRIEVE_AUDIO, _PHONEME_EVENTS, _IPA, _NO_EXIT = 1, 1, 2, 0x8000
_RATE, _PITCH = 1, 3
_UTF8, _END_PAUSE = 1, 0x1000
_LIST_END, _PHONEME = 0, 7


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("symbol", ctypes.c_char * 8),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def main(library: str, *arguments: str) -> None:
    """Load the library, and speak if there are further arguments."""
    espeak = ctypes.CDLL(library)
    options = _PHONEME_EVENTS | _IPA | _NO_EXIT
    sample_rate = espeak.espeak_Initialize(_RETRIEVE_AUDIO, 0, None, options)
    if sample_rate <= 0:
        sys.exit("the library cannot be initialised")
    if not arguments:
        return
    voice, rate, pitch, output, phonemes = arguments
    _select_voice(espeak, voice)
    espeak.espeak_SetParameter(_RATE, int(rate), 0)
    espeak.espeak_SetParameter(_PITCH, int(pitch), 0)
    audio, rows = _speak(espeak, sys.stdin.buffer.read())
    with wave.open(output, "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes(audio)
    lines = [f"{sample / sample_rate:.5f}\t{symbol}\n" for sample, symbol in rows]
    Path(phonemes).write_text("".join(lines), encoding="utf-8")


def _select_voice(espeak: ctypes.CDLL, voice: str) -> None:
    """Select a voice by name or by language, as the program does."""
    language = _Voice(languages=voice.encode())
    if espeak.espeak_SetVoiceByName(voice.encode()) and espeak.espeak_SetVoiceByProperties(
        ctypes.byref(language)
    ):
        sys.exit(f"there is no voice {voice}")


def _speak(espeak: ctypes.CDLL, text: bytes) -> tuple[bytes, list[tuple[int, str]]]:
    """Return 16-bit samples, and the first sample and the symbol of each phoneme."""
    audio, rows = bytearray(), list[tuple[int, str]]()

    def receive(samples: ctypes._Pointer, num_samples: int, events: ctypes._Pointer) -> int:
        if samples and num_samples > 0:
            audio.extend(ctypes.string_at(samples, 2 * num_samples))
        index = 0
        while events[index].type != _LIST_END:
            event = events[index]
            if event.type == _PHONEME:
                rows.append((event.sample, event.symbol.decode("utf-8", "ignore")))
            index += 1
        return 0

    callback = _Callback(receive)
    espeak.espeak_SetSynthCallback(callback)
    flags = _UTF8 | _END_PAUSE
    if espeak.espeak_Synth(text, len(text) + 1, 0, 0, 0, flags, None, None):
        sys.exit("the synthesis failed")
    espeak.espeak_Synchronize()
    return bytes(audio), rows


if __name__ == "__main__":
    main(*sys.argv[1:])
