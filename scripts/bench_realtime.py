"""Measure real-time streaming of 40 ms chunks of speech, at full speed and in real time.

python scripts/bench_realtime.py [--seconds 600] [--face photo.jpg] [--backend auto]

In the paced mode chunks arrive and frames are shown in real time, as in a call. Latency is measured
from the arrival of the last speech that a frame needs; the look-ahead is not included. Memory is
measured after the first fifth and at the end.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from talkinghead.live.pacing import AudioClock, FramePacer
from talkinghead.live.streaming import RealtimeFrame, RealtimeLipSync
from talkinghead.media.reader import read_image
from talkinghead.paths import DEMO_SPEECH, demo_face
from talkinghead.predict.audio.audio_source import Speech
from talkinghead.predict.avatar import Avatar
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.pipeline import in_thread
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import FloatArray

CHUNK_S = 0.04
SIDE = 512


def main() -> None:
    """Stream the repeated demo speech in both modes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--face", type=Path, help="a photo or a video; default: a 512 x 512 photo")
    parser.add_argument(
        "--motion", default=SourceOptions.motion, help="motion of the head in a photo"
    )
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--mode", choices=["full", "paced", "both"], default="both")
    args = parser.parse_args()
    predictor = LipSyncPredictor.from_checkpoint(
        args.checkpoint, backend=args.backend, articulation=1.0, lip_prior=None
    )
    face = args.face or cv2.resize(read_image(demo_face()), (SIDE, SIDE))
    avatar = predictor.avatar(face, SourceOptions(motion=args.motion))
    stream = RealtimeLipSync(avatar)
    print(
        f"{torch.get_num_threads()} threads; look-ahead {1e3 * stream.lookahead_s:.1f} ms, "
        f"playback delay {1e3 * stream.playback_delay_s:.1f} ms"
    )
    speech = np.concatenate(list(Speech(DEMO_SPEECH).chunks(stream.sample_rate)))
    RealtimeLipSync(avatar).push(speech[: stream.sample_rate])  # Warm-up.
    if args.mode != "paced":
        report("full speed", avatar, speech, args.seconds, paced=False)
    if args.mode != "full":
        report("paced", avatar, speech, args.seconds, paced=True)


def report(name: str, avatar: Avatar, speech: FloatArray, seconds: float, paced: bool) -> None:
    """Run one stream and print its statistics."""
    stream = RealtimeLipSync(avatar)
    num_chunks = round(seconds / CHUNK_S)
    first_s = time.monotonic()
    frames: Iterator[RealtimeFrame] = push_chunks(
        stream, speech, num_chunks, first_s if paced else None
    )
    pacer = FramePacer(AudioClock(CHUNK_S + stream.playback_delay_s))
    if paced:
        frames = pacer.release(in_thread(frames, 8, "lipsync"))
    count, early_mib, early_delay_s = 0, memory_mib(), 0.0
    for count, _ in enumerate(frames, 1):
        if count == num_chunks // 5:
            early_mib, early_delay_s = memory_mib(), pacer.last_delay_s
    late_mib, stats = memory_mib(), stream.stats
    print(
        f"{name}: {count} frames, {stats.frames_per_second:.1f} frames/s, latency p50 "
        f"{1e3 * stats.latency_p50_s:.1f} ms, p95 {1e3 * stats.latency_p95_s:.1f} ms, "
        f"{stats.num_late} generated late, queue up to {stats.max_queue_depth}; memory "
        f"{early_mib[0]:.0f} -> {late_mib[0]:.0f} MiB, peak {early_mib[1]:.0f} -> "
        f"{late_mib[1]:.0f} MiB"
    )
    if paced:
        drift = round((pacer.last_delay_s - early_delay_s) / CHUNK_S)
        print(
            f"shown: {pacer.num_late} late, by at most {1e3 * pacer.max_delay_s:.1f} ms; "
            f"drift {drift} frames"
        )


def push_chunks(
    stream: RealtimeLipSync, speech: FloatArray, num_chunks: int, first_s: float | None
) -> Iterator[RealtimeFrame]:
    """Push each chunk at the time it would arrive from a microphone opened at `first_s`."""
    size = round(CHUNK_S * stream.sample_rate)
    for number in range(num_chunks):
        chunk = np.take(speech, range(number * size, (number + 1) * size), mode="wrap")
        arrives_s = None if first_s is None else first_s + (number + 1) * CHUNK_S
        if arrives_s is not None:
            time.sleep(max(0.0, arrives_s - time.monotonic()))
        yield from stream.push(chunk, arrived_s=arrives_s)
    yield from stream.flush()


def memory_mib() -> tuple[float, float]:
    """Return the current and the peak resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * resource.getpagesize() / 2**20
    return resident, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
