"""Mix the audio of several faces into one track."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import av
import numpy as np

from talkinghead.media.audio_decoding import audio_frame, to_planar
from talkinghead.types import FloatArray

AudioFormat: TypeAlias = tuple[int, str]
"""Sample rate in Hz, and FFmpeg's name of the channel layout."""


def mixed_format(formats: Sequence[AudioFormat]) -> AudioFormat:
    """Return the format of a mixture: the highest sample rate, and stereo if layouts differ."""
    layouts = {layout for _, layout in formats}
    return max(rate for rate, _ in formats), layouts.pop() if len(layouts) == 1 else "stereo"


def mix_voices(
    voices: Sequence[Iterable[FloatArray]], formats: Sequence[AudioFormat]
) -> Iterator[FloatArray]:
    """Yield the sum of voices, as long as the longest, float32 [channels, num_samples] in [-1, 1].

    Args:
        voices: chunks float32 [channels, num_samples] of each voice.
        formats: their sample rates and layouts; `mixed_format` is that of the mixture.
    """
    sample_rate, layout = mixed_format(formats)
    sources = [
        iter(convert_audio(chunks, *own, sample_rate, layout))
        for chunks, own in zip(voices, formats, strict=True)
    ]
    num_channels = int(av.AudioLayout(layout).nb_channels)
    rests = [np.zeros((num_channels, 0), np.float32) for _ in voices]
    ended = [False] * len(voices)
    while True:
        for index, source in enumerate(sources):
            while not ended[index] and not rests[index].shape[1]:
                chunk = next(source, None)
                ended[index] = chunk is None
                rests[index] = rests[index] if chunk is None else chunk
        ready = [rest.shape[1] for rest in rests if rest.shape[1]]
        if not ready:
            return
        length = min(ready)
        mixed = np.zeros((num_channels, length), np.float32)
        for index, rest in enumerate(rests):
            if rest.shape[1]:
                mixed += rest[:, :length]
                rests[index] = rest[:, length:]
        yield mixed.clip(-1, 1)


def convert_audio(
    chunks: Iterable[FloatArray], sample_rate: int, layout: str, to_rate: int, to_layout: str
) -> Iterator[FloatArray]:
    """Convert chunks to another rate and layout; a mono signal keeps its level in stereo."""
    if layout == "mono" and to_layout == "stereo":
        chunks, layout = (np.repeat(chunk, 2, axis=0) for chunk in chunks), "stereo"
    resampler = av.AudioResampler(format="flt", layout=to_layout, rate=to_rate)
    for chunk in filter(np.size, chunks):
        for frame in resampler.resample(audio_frame(chunk, sample_rate, layout)):
            yield to_planar(frame)
    for frame in resampler.resample(None):
        yield to_planar(frame)
