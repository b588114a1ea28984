"""Channel layouts of audio streams whose channels are in an order of their own.

PyAV 18 copies such a layout without its list of channels, so that the list is freed twice. It
occurs in files with PCM audio, such as a .mov file with 7.1 channels.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import av

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.layout import AudioLayout
    from av.audio.stream import AudioStream

USUAL_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
"""Names of the usual channel layouts by number of channels."""

_OTHER_LAYOUTS = (
    *("2.1", "3.0", "quad", "4.0", "4.1", "5.0", "5.1(side)", "6.0", "6.1", "7.0"),
    *("7.1(wide)", "octagonal"),
)


def read_layout(context: AudioCodecContext) -> AudioLayout:
    """Return the layout of a codec context, which must not be read in another way."""
    layout = context.layout
    if _has_own_order(layout):
        # The object must outlive the interpreter: freeing it would free the list a second time.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
    return layout


def use_usual_layout(stream: AudioStream) -> list[int] | None:
    """Give a stream with an order of its own a usual layout, before anything is decoded.

    Returns:
        The indices of the stream's channels in the order of the usual layout; None for a stream
        whose layout is not changed.
    """
    layout = read_layout(stream.codec_context)
    if not _has_own_order(layout):
        return None
    given = [channel.name for channel in layout.channels]
    usual = USUAL_LAYOUTS.get(len(given), f"{len(given)}c")
    for name in (usual, *_OTHER_LAYOUTS):
        names = [channel.name for channel in av.AudioLayout(name).channels]
        if sorted(names) == sorted(given):
            stream.codec_context.layout = av.AudioLayout(name)
            return [given.index(one) for one in names]
    stream.codec_context.layout = av.AudioLayout(usual)
    return list(range(len(given)))


def _has_own_order(layout: AudioLayout) -> bool:
    return "channels (" in layout.name
