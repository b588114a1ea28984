"""Animate a photo while the speech is arriving, synchronised with the playback of the speech.

    python examples/stream_chunks.py photo.jpg frames/ first.wav second.wav

Each file simulates an utterance that arrives in chunks of 40 ms, as in a call. `Player` simulates a
sound card, and images are saved instead of shown; replace both in an application.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np

from talkinghead import LipSyncPredictor, RealtimeFrame, RealtimeLipSync
from talkinghead.live.pacing import FramePacer
from talkinghead.media.audio_decoding import read_audio
from talkinghead.media.writer import write_image

CHUNK_S = 0.04


class Player:
    """A simulated sound card that begins to play `delay_s` after the first chunk.

    With a real sound card, also begin to play `delay_s` after the first chunk, and compute the
    position from the number of samples that the sound card has played.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._start_s: float | None = None

    def write(self, chunk: np.ndarray) -> None:
        """Queue samples for playback."""
        if self._start_s is None:
            self._start_s = time.monotonic() + self._delay_s

    def position_s(self) -> float:
        """Return the seconds of speech played so far; negative before playback begins."""
        return -self._delay_s if self._start_s is None else time.monotonic() - self._start_s


def speak(stream: RealtimeLipSync, player: Player, speech: np.ndarray, frames: Queue) -> None:
    """Push the chunks of an utterance when they arrive, and queue the generated frames."""
    size = round(CHUNK_S * stream.sample_rate)
    for start in range(0, len(speech), size):
        chunk = speech[start : start + size]  # float32 in [-1, 1] or int16, mono
        player.write(chunk)
        for frame in stream.push(chunk):
            frames.put(frame)
        time.sleep(CHUNK_S)
    for frame in stream.flush():  # the last frames
        frames.put(frame)
    frames.put(None)


def queued(frames: Queue) -> Iterator[RealtimeFrame]:
    """Yield the queued frames of an utterance."""
    while (frame := frames.get()) is not None:
        yield frame


def main() -> None:
    """Read the command line and show each utterance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("output", type=Path)
    parser.add_argument("speech", nargs="+")
    arguments = parser.parse_args()

    avatar = LipSyncPredictor.from_checkpoint("default").avatar(arguments.photo)
    with RealtimeLipSync(avatar) as stream:
        print(f"playback starts {stream.playback_delay_s:.2f} s after the first chunk")
        for number, path in enumerate(arguments.speech):
            speech = read_audio(path, stream.sample_rate).samples
            player, frames = Player(stream.playback_delay_s), Queue()
            Thread(target=speak, args=(stream, player, speech, frames), daemon=True).start()
            pacer = FramePacer(player.position_s)
            for index, (image, _) in enumerate(pacer.release(queued(frames))):
                write_image(arguments.output / f"{number}_{index:04}.png", image)
            print(f"{path}: {pacer.num_released} frames, {pacer.num_late} late")
            # Between utterances the last image is shown. To keep the avatar moving in a pause of
            # known length, push zeros instead.
            stream.reset()


if __name__ == "__main__":
    main()
