"""Synthesise src/talkinghead/assets/demo.flac with `flite` (Debian: apt install flite)."""

from __future__ import annotations

import subprocess
import tempfile
import wave
from pathlib import Path

import av
import numpy as np

from talkinghead.paths import DEMO_SPEECH

SENTENCES = (
    "Hello!",
    "I am a photograph, and someone lent me a voice.",
    "Watch my lips open and close with every word.",
)
SAMPLE_RATE = 16_000
PAUSE_S = 0.4
"""Seconds of digital silence around each sentence, in which the mouth must close."""


def speak(text: str, folder: Path) -> np.ndarray:
    """Return a text spoken by Flite's voice `slt`: trimmed int16 [num_samples] at 16 kHz."""
    target = folder / "speech.wav"
    voice = ["-voice", "slt", "--setf", "duration_stretch=1.05"]
    subprocess.run(["flite", *voice, "-t", text, "-o", str(target)], check=True)
    with wave.open(str(target)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    loud = np.flatnonzero(np.abs(samples) > 300)
    return samples[max(0, loud[0] - 400) : loud[-1] + 800]


def main() -> None:
    """Synthesise the speech and write the FLAC file."""
    silence = np.zeros(int(PAUSE_S * SAMPLE_RATE), np.int16)
    with tempfile.TemporaryDirectory() as folder:
        parts = [part for text in SENTENCES for part in (silence, speak(text, Path(folder)))]
    samples = np.concatenate([*parts, silence])
    with av.open(str(DEMO_SPEECH), "w") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    print(f"{DEMO_SPEECH}: {len(samples) / SAMPLE_RATE:.2f} s, {DEMO_SPEECH.stat().st_size} bytes")


if __name__ == "__main__":
    main()
