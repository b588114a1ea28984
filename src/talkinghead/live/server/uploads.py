"""Uploaded files: checked, decoded and rewritten by a process with limited time and memory.

Other processes only open the rewritten file, which contains no metadata of the client's file.
This module is also the program of that process, so it imports little at its top.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import signal
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from talkinghead.concurrency import lower_process_priority
from talkinghead.errors import FaceNotFoundError, MediaError, TalkingHeadError, UsageError
from talkinghead.media.atomic_file import is_disk_full

if TYPE_CHECKING:
    from fastapi import UploadFile

    from talkinghead.live.server.server_settings import ServerSettings
    from talkinghead.types import FloatArray, UInt8Array

Kind = Literal["face", "speech"]

# Leading bytes of the accepted formats, and the kinds of uploads that may have them.
_SIGNATURES: dict[str, tuple[re.Pattern[bytes], tuple[Kind, ...]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), ("face",)),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), ("face",)),
    "WebP": (re.compile(rb"RIFF....WEBP", re.DOTALL), ("face",)),
    "MP4 or MOV": (re.compile(rb"....ftyp", re.DOTALL), ("face", "speech")),
    "WebM or Matroska": (re.compile(rb"\x1a\x45\xdf\xa3"), ("face", "speech")),
    "WAV": (re.compile(rb"RIFF....WAVE", re.DOTALL), ("speech",)),
    "FLAC": (re.compile(rb"fLaC"), ("speech",)),
    "Ogg": (re.compile(rb"OggS"), ("speech",)),
    "MP3": (re.compile(rb"ID3|\xff[\xe2-\xff]"), ("speech",)),
}
_MAX_FPS = 30
# Interval in frames at which a face is searched for.
_SEARCH_FRAMES = 5
_MAX_OUTPUT_BYTES = 2**28
_CALIBRATION_RATE = 16_000
_SPEECH_RATES = (8_000, 48_000)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_DISK_FULL = "disk full"
_ERRORS = {kind.__name__: kind for kind in (MediaError, FaceNotFoundError, UsageError)}


@dataclass(frozen=True)
class DecodeLimits:
    """Limits of the decoding process; see `ServerSettings`."""

    max_pixels: int
    max_side: int
    max_s: float
    time_s: float
    memory_bytes: int


class UploadChecker:
    """Checks of uploaded files, one at a time, so that live sessions have enough CPU time.

    Example:
        >>> path = await UploadChecker(settings).prepare(upload, "face", folder, "anna")
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._turn = asyncio.Semaphore(1)

    async def prepare(self, upload: UploadFile, kind: Kind, folder: Path, name: str) -> Path:
        """Write an upload as `name`.png, .mp4 or .wav, and return its path.

        Raises:
            MediaError: The file is too large, of another type, damaged, or takes too long.
            FaceNotFoundError: It shows no face.
        """
        settings = self._settings
        if upload.size is not None and upload.size > settings.max_upload_bytes:
            raise MediaError(
                f"upload: {upload.size:,} bytes; at most {settings.max_upload_bytes:,} are accepted"
            )
        check_signature(await upload.read(16), kind)
        limits = DecodeLimits(
            settings.max_pixels,
            settings.max_side,
            settings.max_video_s if kind == "face" else settings.max_audio_s,
            settings.upload_timeout_s,
            settings.upload_memory_bytes,
        )
        work = folder / f"{name}.upload"
        await asyncio.to_thread(work.mkdir)
        try:
            await asyncio.to_thread(_copy, upload.file, work / "upload")
            async with self._turn:
                written = await _decode(work, kind, limits)
            target = folder / f"{name}{Path(written).suffix}"
            return await asyncio.to_thread((work / written).rename, target)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)


def check_signature(head: bytes, kind: Kind) -> None:
    """Check the leading bytes of a file.

    Raises:
        MediaError: The format is not accepted for this kind of upload.
    """
    accepted = {name: start for name, (start, kinds) in _SIGNATURES.items() if kind in kinds}
    if not any(start.match(head) for start in accepted.values()):
        raise MediaError(
            f"upload: not a {'photo or video' if kind == 'face' else 'file with speech'} of a "
            f"supported format; expected {', '.join(accepted)}"
        )


def _copy(source: BinaryIO, target: Path) -> None:
    source.seek(0)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file)


async def _decode(work: Path, kind: Kind, limits: DecodeLimits) -> str:
    """Run the decoding process, and return the name of the file that it wrote."""
    # Remove API keys, because the process decodes untrusted files.
    environment = {key: value for key, value in os.environ.items() if not _SECRET.search(key)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, kind, json.dumps(vars(limits))),
        cwd=work,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(2 * limits.time_s):
            output, _ = await process.communicate()
    except TimeoutError:
        output = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        result = json.loads(output)
    except ValueError:
        raise MediaError(
            "upload: decoding it takes too much time or memory, or fails; give a smaller file"
        ) from None
    if result.get("error") == _DISK_FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "error" in result:
        raise _ERRORS.get(result["error"], TalkingHeadError)(result["message"])
    return result["file"]


def main(kind: Kind, limits: DecodeLimits) -> None:
    """Decode `upload` in the current folder, and print a JSON line with the file or the error."""
    if kind == "face":
        # Load the libraries first, so that the limits do not include them.
        import talkinghead.features.faces.litert_detector  # noqa: F401

    _limit_resources(limits)
    lower_process_priority()  # Live sessions have priority over uploads.
    try:
        file = (rewrite_face if kind == "face" else rewrite_speech)(Path("upload"), limits)
        result = {"file": file.name}
    except (TalkingHeadError, OSError) as error:
        is_full = is_disk_full(error)
        if isinstance(error, OSError) and not is_full:
            raise
        result = {"error": _DISK_FULL if is_full else type(error).__name__, "message": str(error)}
    sys.stdout.write(json.dumps(result))


def _limit_resources(limits: DecodeLimits) -> None:
    """Limit memory (on Linux), processor time and file size of this process from now on.

    Windows has no such limits; there, only the time limit of the parent process applies.
    """
    if sys.platform == "win32":
        return
    import resource

    if sys.platform == "linux":
        used_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        memory = used_pages * resource.getpagesize() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = round(used.ru_utime + used.ru_stime + limits.time_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_OUTPUT_BYTES, _MAX_OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(round(2 * limits.time_s) + 1)


def rewrite_face(path: Path, limits: DecodeLimits) -> Path:
    """Write a photo as PNG, or a video as MP4 with the speech; both reduced in size."""
    from talkinghead.features.faces.detector import build_detector
    from talkinghead.media.container import find_video, open_input
    from talkinghead.media.reader import is_image, read_image
    from talkinghead.media.writer import write_image

    with open_input(path) as container:
        stream = find_video(container, path)
        if stream is None:
            raise MediaError(f"{path}: has no video; give a photo or a video of a face")
        width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.max_pixels:
        raise MediaError(
            f"{path}: {width} x {height} pixels; at most {limits.max_pixels:,} are accepted, "
            "scale it down"
        )
    if not is_image(path):
        return _rewrite_video(path, limits)
    image = read_image(path)
    image = _resize(image, _reduced(image.shape[1], image.shape[0], limits.max_side))
    if not build_detector().detect(image):
        raise _no_face(path)
    write_image("face.png", image)
    return Path("face.png")


def _rewrite_video(path: Path, limits: DecodeLimits) -> Path:
    """Write a video; its audio, from which the lip motion is calibrated, is mono at 16 kHz."""
    from talkinghead.features.faces.detector import build_detector
    from talkinghead.media.reader import grid_frames, probe, read_video
    from talkinghead.media.writer import VideoWriter

    info = probe(path)
    size = _reduced(info.width, info.height, limits.max_side)
    fps = min(info.fps or Fraction(25), Fraction(_MAX_FPS))
    audio = _calibration_audio(path, limits) if info.has_audio else None
    rate = None if audio is None else _CALIBRATION_RATE
    detector, has_face = build_detector(), False
    with VideoWriter("face.mp4", *size, fps, rate) as writer:
        for number, frame in enumerate(grid_frames(read_video(path), fps)):
            if frame.time_s >= limits.max_s:
                raise MediaError(f"{path}: longer than {limits.max_s:g} s; give a shorter video")
            image = _resize(frame.image, size)
            if not has_face and number % _SEARCH_FRAMES == 0:
                has_face = bool(detector.detect(image))
            writer.write(image)
        if not has_face:
            raise _no_face(path)
        if audio is not None:
            writer.write_audio(audio)
    return Path("face.mp4")


def _calibration_audio(path: Path, limits: DecodeLimits) -> FloatArray | None:
    """Return the audio of a video, up to the maximum duration; None if it is damaged."""
    import numpy as np

    from talkinghead.media.audio_decoding import stream_audio

    chunks: list[FloatArray] = []
    num_samples = 0
    try:
        for chunk in stream_audio(path, _CALIBRATION_RATE):
            chunks.append(chunk)
            num_samples += len(chunk)
            if num_samples >= limits.max_s * _CALIBRATION_RATE:
                break
    except MediaError:
        return None
    if not num_samples:
        return None
    return np.concatenate(chunks)[: int(limits.max_s * _CALIBRATION_RATE)]


def _no_face(path: Path) -> FaceNotFoundError:
    return FaceNotFoundError(
        f"{path}: no face was found; give a photo or video of a face that looks at the camera"
    )


def _reduced(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Return even sizes of at most `max_side`, as video players need even sizes."""
    scale = min(1.0, max_side / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _resize(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    import cv2

    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(image.dtype, copy=False)


def rewrite_speech(path: Path, limits: DecodeLimits) -> Path:
    """Write speech as a WAV file, 16-bit and mono."""
    import wave

    from talkinghead.media.audio_decoding import stream_audio
    from talkinghead.media.audio_samples import to_int16
    from talkinghead.media.reader import probe

    lowest, highest = _SPEECH_RATES
    rate = min(max(probe(path).sample_rate or highest, lowest), highest)
    target, num_samples = Path("speech.wav"), 0
    with wave.open(str(target), "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        for chunk in stream_audio(path, rate):
            num_samples += len(chunk)
            if num_samples > limits.max_s * rate:
                raise MediaError(f"{path}: longer than {limits.max_s:g} s; give shorter speech")
            writer.writeframes(to_int16(chunk).tobytes())
    return target


if __name__ == "__main__":
    main(cast(Kind, sys.argv[1]), DecodeLimits(**json.loads(sys.argv[2])))
