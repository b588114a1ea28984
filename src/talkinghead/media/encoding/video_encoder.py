"""Choice of the video encoder and its options; hardware encoders are tried before they are used."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av

from talkinghead.errors import UsageError
from talkinghead.media.decoding.tone_mapping import HDRFormat
from talkinghead.media.encoding.output_formats import OutputFormat

log = logging.getLogger(__name__)

_NUMBER = re.compile(r"\d+")

# Trade-offs of speed and size, from fast to small, as x264 names them.
PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
MAX_CRF = 51
_MAX_VP9_CRF = 63
# Frames with more pixels are encoded with the fast motion search of x264's superfast, without its
# rate control, which doubles the size, and with a short look-ahead.
_LARGE_FRAME = 4_000_000
_FAST_SEARCH = {"x264-params": "me=dia:subme=1:partitions=i8x8,i4x4:b-adapt=0:rc-lookahead=5"}
_SOFTWARE = {"h264": "libx264", "vp9": "libvpx-vp9"}
# In the order in which they are tried.
_HARDWARE = {
    "h264": (
        *("h264_nvenc", "h264_qsv", "h264_amf", "h264_videotoolbox"),
        *("h264_vaapi", "h264_mf", "h264_v4l2m2m"),
    ),
    "vp9": ("vp9_qsv", "vp9_vaapi"),
}


@dataclass(frozen=True)
class VideoEncoder:
    """An FFmpeg encoder and its options; `codec_tag` is empty for the usual tag of its codec."""

    name: str
    options: Mapping[str, str]
    codec_tag: str = ""

    @property
    def is_hardware(self) -> bool:
        """Whether the encoder uses hardware; FFmpeg's names of the others start with "lib"."""
        return not self.name.startswith("lib")


def choose_encoder(
    output: OutputFormat,
    encoder: str,
    crf: int,
    preset: str,
    is_usable: Callable[[VideoEncoder], bool] | None = None,
    *,
    num_pixels: int = 0,
) -> VideoEncoder:
    """Return the encoder for a format.

    Args:
        output: the format.
        encoder: "software"; "hardware" for the first hardware encoder that works; or the name of
            a hardware encoder. If none works, a warning is logged and software is used.
        crf: quality from 0 to 51 on x264's scale.
        preset: speed, one of `PRESETS`.
        is_usable: function that tries an encoder; None tries to encode an image.
        num_pixels: number of pixels of a frame, 0 if unknown; preset "veryfast" is faster for more
            than four million.

    Raises:
        UsageError: the preset or the encoder is unknown, or the encoder belongs to another format.
    """
    _check_preset(preset)
    software = _software_encoder(_SOFTWARE[output.video_codec], crf, preset)
    if software.name == "libx264" and preset == "veryfast" and num_pixels > _LARGE_FRAME:
        software = replace(software, options={**software.options, **_FAST_SEARCH})
    if encoder == "software":
        return software
    known = _HARDWARE[output.video_codec]
    if encoder != "hardware" and encoder not in known:
        names = ", ".join(("software", "hardware", *known))
        raise UsageError(
            f"encoder={encoder} is not an encoder for {output.muxer}: choose one of {names}"
        )
    tried = known if encoder == "hardware" else (encoder,)
    for name in tried:
        candidate = VideoEncoder(name, _hardware_options(name, crf))
        if (is_usable or _encodes_an_image)(candidate):
            log.info("encoder=%s: using %s", encoder, name)
            return candidate
    log.warning(
        "encoder=%s: %s is not available on this machine; using %s instead",
        encoder,
        "a hardware encoder" if encoder == "hardware" else encoder,
        software.name,
    )
    return software


def hdr_encoder(output: OutputFormat, crf: int, preset: str, hdr: HDRFormat) -> VideoEncoder:
    """Return the encoder for 10-bit HDR: HEVC, or AV1 in WebM.

    `crf` is on the scale of x264, from 0 to 51, and `preset` one of `PRESETS`. Light levels are
    stored in the stream.

    Raises:
        UsageError: the preset is unknown.
    """
    _check_preset(preset)
    light = hdr.max_light and f"{hdr.max_light[0]},{hdr.max_light[1]}"
    if output.muxer == "webm":
        # SVT-AV1 takes the speed as a number up to 13 (fast), and the quality from 1 to 63.
        speed = 12 - PRESETS.index(preset)
        display = hdr.mastering_display and _in_units(hdr.mastering_display)
        parameters = {"content-light": light, "mastering-display": display}
        # The encoder prints its settings unless this variable is set.
        os.environ.setdefault("SVT_LOG", "1")
        options = {"preset": str(speed), "crf": str(max(1, round(crf * _MAX_VP9_CRF / MAX_CRF)))}
        return VideoEncoder("libsvtav1", options | _joined("svtav1-params", parameters))
    parameters = {
        "log-level": "error",
        "hdr10": "1" if hdr.mastering_display else None,
        "master-display": hdr.mastering_display,
        "max-cll": light,
    }
    options = {"preset": preset, "crf": str(crf)} | _joined("x265-params", parameters)
    # Apple's players need this tag.
    is_mp4 = output.muxer in {"mp4", "mov"}
    return VideoEncoder("libx265", options, "hvc1" if is_mp4 else "")


def _check_preset(preset: str) -> None:
    if preset not in PRESETS:
        raise UsageError(f"preset={preset} is unknown: choose one of {', '.join(PRESETS)}")


def _in_units(display: str) -> str:
    """Return x265's notation of a mastering display in the units of SVT-AV1."""
    scales = [50_000] * 8 + [10_000] * 2
    numbers = (int(n) / scale for n, scale in zip(_NUMBER.findall(display), scales, strict=True))
    return _NUMBER.sub(lambda _: f"{next(numbers):.5g}", display)


def _joined(name: str, parameters: Mapping[str, str | None]) -> dict[str, str]:
    """Return an option with the parameters that are known."""
    known = [f"{key}={value}" for key, value in parameters.items() if value]
    return {name: ":".join(known)} if known else {}


def _software_encoder(name: str, crf: int, preset: str) -> VideoEncoder:
    if name == "libx264":
        return VideoEncoder(name, {"crf": str(crf), "preset": preset})
    # libvpx takes the speed as a number from 8 (fast) to 0 (small).
    speed = max(0, 8 - PRESETS.index(preset))
    options = {
        "crf": str(round(crf * _MAX_VP9_CRF / MAX_CRF)),
        "deadline": "realtime" if speed > 5 else "good",
        "cpu-used": str(speed if speed > 5 else min(5, speed)),
        "row-mt": "1",
    }
    return VideoEncoder(name, options | ({"lossless": "1"} if crf == 0 else {}))


def _hardware_options(name: str, crf: int) -> dict[str, str]:
    """Return the options for constant quality, as far as the encoder has it."""
    if name.endswith("_nvenc"):
        return {"rc": "vbr", "cq": str(crf), "preset": "p4"}
    if name.endswith("_qsv"):
        return {"global_quality": str(max(1, crf))}
    if name.endswith("_amf"):
        return {"rc": "cqp", "qp_i": str(crf), "qp_p": str(crf)}
    if name.endswith("_videotoolbox"):
        return {"q": str(round(100 * (1 - crf / MAX_CRF)))}
    return {}


def _encodes_an_image(encoder: VideoEncoder) -> bool:
    """Return whether an encoder can be opened and encodes an image."""
    try:
        context: Any = av.CodecContext.create(encoder.name, "w")
        context.width = context.height = 256
        context.pix_fmt = "yuv420p"
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = dict(encoder.options)
        frame = av.VideoFrame(256, 256, "yuv420p")
        frame.pts = 0
        return bool([*context.encode(frame), *context.encode(None)])
    except (av.FFmpegError, ValueError, OSError):
        return False
