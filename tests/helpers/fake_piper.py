"""A fake Piper program that writes the character codes of each sentence as samples.

A sentence with the word "slow" takes 0.3 s, one with "hang" never ends, and one with "crash" ends
the program. The option --load-s is the time in seconds that loading takes.
"""

import argparse
import sys
import time
import wave
from pathlib import Path

import numpy as np

SLOW_S = 0.3


def as_text(samples):
    """Return the sentence that is encoded in samples."""
    return "".join(map(chr, np.rint(samples * 2**15).astype(int)))


def write_text(path, text):
    """Write a 16 kHz WAV file whose samples are the character codes of a text."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.array([*map(ord, text)], "<i2").tobytes())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output-dir", type=Path)
    parser.add_argument("--load-s", type=float, default=0.0)
    options, _ = parser.parse_known_args()
    time.sleep(options.load_s)
    for line in sys.stdin:
        sentence = line.strip()
        if "crash" in sentence:
            sys.exit("it crashed")
        time.sleep(SLOW_S if "slow" in sentence else 3600 if "hang" in sentence else 0.0)
        path = options.output_dir / f"{time.monotonic_ns()}.wav"
        write_text(path, sentence)
        sys.stderr.write(f"INFO:__main__:Wrote {path}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
