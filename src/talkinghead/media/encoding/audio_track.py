"""Encoding of the audio track of an output file."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av

from talkinghead.media.audio_decoding import audio_frame
from talkinghead.media.decoding.channel_layouts import USUAL_LAYOUTS
from talkinghead.types import FloatArray

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

_RATES = {
    "aac": {
        *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
        *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
    },
    "libopus": {48_000, 24_000, 16_000, 12_000, 8_000},
}
_FALLBACK_RATE = 48_000
# Layouts that both encoders support; others are mixed down to stereo.
_LAYOUTS = {"mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1"}
# Other names of the same number of channels.
_SYNONYMS = {"5.1(side)": "5.1", "5.0(side)": "5.0", "quad": "4.0", "7.1(wide)": "7.1"}


class EncodedTrack:
    """The audio track of a container, encoded as the samples arrive.

    The codec is "aac" or "libopus"; sample rates that it does not support are resampled to 48 kHz.
    """

    def __init__(
        self, container: OutputContainer, codec: str, sample_rate: int, layout: str
    ) -> None:
        self.sample_rate, self.layout = sample_rate, layout
        self._num_samples = 0
        rate = sample_rate if sample_rate in _RATES[codec] else _FALLBACK_RATE
        # The default AAC coder takes twice as long and gives no better quality.
        options = {"aac_coder": "fast"} if codec == "aac" else {}
        added = container.add_stream(
            codec, rate=rate, layout=encoded_layout(layout), options=options
        )
        self._stream = cast("AudioStream", added)
        channels = self._stream.codec_context.layout.nb_channels
        # The limit of AAC is 6144 bits per frame of 1024 samples and channel, that is 6 bits per
        # sample. At low sample rates this is less than 128 kbit/s.
        self._stream.codec_context.bit_rate = min(64_000 * (1 + channels), 6 * rate * channels)

    def encode(self, samples: FloatArray) -> list[Packet]:
        """Return the packets that are ready after the next samples, float32 [channels, n]."""
        frame = audio_frame(samples, self.sample_rate, self.layout)
        frame.pts, frame.time_base = self._num_samples, Fraction(1, self.sample_rate)
        self._num_samples += samples.shape[1]
        return self._stream.encode(frame)

    def flush(self) -> list[Packet]:
        """Return the remaining packets."""
        return self._stream.encode(None) if self._num_samples else []


def encoded_layout(layout: str) -> str:
    """Return the channel layout that is encoded for samples of another layout."""
    layout = _SYNONYMS.get(layout, layout)
    if layout in _LAYOUTS:
        return layout
    return USUAL_LAYOUTS.get(av.AudioLayout(layout).nb_channels, "stereo")
