"""Audio whose channels are in an order of their own, such as 7.1 PCM in a .mov file."""

import subprocess
import sys

import av
import numpy as np
import pytest

from talkinghead.media.audio_decoding import probe_channels

ORDER = ["FL", "FR", "FC", "LFE", "SL", "SR", "BL", "BR"]


@pytest.fixture
def surround(tmp_path):
    """Return a .mov file with PCM audio of 8 channels, of which the channel i has the level i."""
    path = tmp_path / "surround.mov"
    usual = [channel.name for channel in av.AudioLayout("7.1").channels]
    levels = np.array([ORDER.index(name) + 1 for name in usual], np.float32) / 10
    samples = np.tile(levels, 4800).reshape(1, -1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", 48_000, layout="7.1")
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16), "s16", "7.1")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def test_channels_of_an_own_order_are_read_in_the_usual_order(surround):
    # A fault of the memory management ends the process, possibly at its exit.
    code = (
        "import sys, numpy as np\n"
        "from talkinghead.media.audio_decoding import read_audio, stream_channels\n"
        "for _ in range(5):\n"
        "    chunks = list(stream_channels(sys.argv[1])); read_audio(sys.argv[1], 16_000)\n"
        "print([round(float(x), 2) for x in np.concatenate(chunks, 1).mean(1)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(surround)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[0.1, 0.2, 0.3, 0.4, 0.7, 0.8, 0.5, 0.6]\n"
    assert probe_channels(surround) == (48_000, "7.1")
