"""Benchmark prediction: time of each stage, end-to-end speed and memory use.

python scripts/bench_predict.py [--media photo video] [--backends torch onnx openvino]
python scripts/bench_predict.py --device cuda --precisions 32 16-mixed bf16-mixed

Without --photo and --video, a photo (512 x 512) and a video (1280 x 720, a moving head) are made.
Each column is measured in a separate process. Stages are timed one at a time; in the end-to-end
measurement they run in parallel, as in `talkinghead predict`, and the head of the photo moves
(`--motion`). The generator runs without a lip prior and with articulation 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import (
    as_tensor,
    estimate_transform,
    lip_points,
    transform_points,
    warp_face,
)
from talkinghead.features.faces.tracker import FaceTracker
from talkinghead.media.reader import is_image, read_audio, read_image, read_video
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.paths import DEMO_SPEECH, demo_face
from talkinghead.predict.options import PredictOptions, SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.runtime.export.verification import demo_sample, generate_mouths
from talkinghead.runtime.loading import place
from talkinghead.types import AudioClip

STAGE_FRAMES = 50
FPS = 25


def main() -> None:
    """Measure each column in a separate process and print the table."""
    args = parse_arguments()
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        media = make_media(args, Path(folder))
        for kind, backend, precision in product(args.media, args.backends, args.precisions):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                column = pool.submit(measure, args, media[kind], backend, precision, time.time())
                columns[f"{kind}\n{backend}\n{precision}"] = column.result()
    show(columns, args)
    if args.json:
        args.json.write_text(json.dumps(columns, indent=1))


def parse_arguments() -> argparse.Namespace:
    """Return the parsed command-line arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = ["photo", "video"]
    parser.add_argument("--media", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--speech", type=Path, default=DEMO_SPEECH)
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of the speech")
    parser.add_argument("--height", type=int, default=720, help="height of the video that is made")
    parser.add_argument("--backends", nargs="+", default=["torch"])
    parser.add_argument("--precisions", nargs="+", default=["32"])
    parser.add_argument(
        "--motion", default=SourceOptions.motion, help="motion of the head in the photo"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    return parser.parse_args()


def make_media(args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Return the given files, or the demo photo and a video in which the photo moves."""
    photo = cv2.resize(read_image(demo_face()), (512, 512), interpolation=cv2.INTER_AREA)
    photo_path, video_path = args.photo or folder / "photo.png", args.video or folder / "video.mp4"
    if args.photo is None and "photo" in args.media:
        write_image(photo_path, photo)
    if args.video is None and "video" in args.media:
        height, width = args.height, round(args.height * 16 / 18) * 2
        with VideoWriter(video_path, width, height, Fraction(FPS), None) as writer:
            for number in range(round(args.seconds * FPS)):
                time_s = number / FPS
                angle, scale = 6 * np.sin(2 * time_s), height / 512 * (1.2 + 0.1 * np.sin(time_s))
                move = cv2.getRotationMatrix2D((224.0, 150.0), float(angle), float(scale))
                move[0, 2] += width / 2 - 224 + width / 12 * np.sin(1.3 * time_s)
                move[1, 2] += height / 2 - 150 + height / 20 * np.cos(time_s)
                image = cv2.warpAffine(photo, move, (width, height), borderMode=cv2.BORDER_REFLECT)
                writer.write(np.asarray(image, dtype=np.uint8), Fraction(number, FPS))
    return {"photo": photo_path, "video": video_path}


def measure(
    args: argparse.Namespace, face: Path, backend: str, precision: str, started_s: float
) -> dict[str, float]:
    """Measure one column of the table; `started_s` is the start time of the process."""
    predictor = load_predictor(args, precision, backend)
    row = {"start-up, s": time.time() - started_s}
    rate = predictor.spec.sample_rate
    samples = read_audio(args.speech, rate).samples
    clip = AudioClip(np.resize(samples, round(args.seconds * rate)), rate)
    options = SourceOptions(motion=args.motion)
    started = time.perf_counter()
    with predictor.predict(face, clip, options) as prediction:
        next(prediction)
    row["to the first frame, s"] = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        report = predictor.render(face, clip, Path(folder) / "out.mp4", options)
        elapsed_s = time.perf_counter() - started
        row["end to end, frames/s"] = report.num_frames / elapsed_s
        row["real-time factor"] = elapsed_s / args.seconds
        row["peak memory, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if predictor.device.type == "cuda":
            row["peak GPU memory, MiB"] = torch.cuda.max_memory_allocated() / 2**20
        num_frames = max(1, min(STAGE_FRAMES, round(args.seconds * FPS)))
        row |= stage_times(predictor, face, num_frames, clip, Path(folder) / "stages.mp4")
    if (backend, precision) not in (("torch", "32"), ("auto", "32")):
        exact = load_predictor(args, "32", "torch")
        row["mouths relative to torch in fp32, PSNR dB"] = psnr_of_mouths(predictor, exact)
    return row


def load_predictor(args: argparse.Namespace, precision: str, backend: str) -> LipSyncPredictor:
    """Load the predictor without a lip prior."""
    options = PredictOptions(backend, args.device, precision, articulation=1.0, lip_prior=None)
    return LipSyncPredictor.from_checkpoint(args.checkpoint, options)


def stage_times(
    predictor: LipSyncPredictor, face_path: Path, count: int, clip: AudioClip, output: Path
) -> dict[str, float]:
    """Return the milliseconds per frame of each stage, run alone on the first `count` frames."""
    spec, is_photo = predictor.spec, is_image(face_path)
    row: dict[str, float] = {}
    frames = source_frames(predictor, face_path, count, row)
    reference = frames[0].reference
    assert reference is not None
    with timed(row, "encode face", 1), torch.inference_mode():
        face = as_tensor(warp_face(reference.image, reference.transform, spec.face_size)[None])
        lips = torch.from_numpy(transform_points(reference.lips, reference.transform))[None]
        device = predictor.device
        predictor.model.encode_reference(face.to(device), lips.to(device)).token.cpu()
    samples = clip.samples[: round((count + 10) * spec.sample_rate / FPS)]
    with timed(row, "mel", count):
        AudioFeatures(spec, predictor.model.input_features)(torch.from_numpy(samples))
    mouths = predictor.mouth_generator()
    mouths.tokens.push(samples)
    mouths.tokens.finish()
    size = 25 if is_photo else 8
    batches = [frames[start : start + size] for start in range(0, len(frames), size)]
    with timed(row, "generate", count):
        generated = [frame for batch in batches for frame in mouths.generate(batch)]
    compositor = predictor.compositor()
    with timed(row, "composite", count):
        images = [compositor.composite(frame)[0] for frame in generated]
    height, width = images[0].shape[:2]
    writer = VideoWriter(output, width, height, Fraction(FPS), None)
    with timed(row, "encode", count), writer:
        for frame, image in zip(frames, images, strict=True):
            writer.write(image, frame.time_s)
    return row


def source_frames(
    predictor: LipSyncPredictor, path: Path, count: int, row: dict[str, float]
) -> list[SourceFrame]:
    """Return source frames whose reference is the first face; record the timings."""
    is_photo = is_image(path)
    with timed(row, "decode", 1 if is_photo else count):
        if is_photo:
            images = [read_image(path)]
        else:
            images = [frame.image for frame in islice(read_video(path), count)]
    tracker = FaceTracker(predictor.detector)
    with timed(row, "detect", len(images)):
        faces = [tracker.update(image) for image in images]
    found = [(image, face) for image, face in zip(images, faces, strict=True) if face is not None]
    if not found:
        raise SystemExit(f"{path}: no face was found in the first {count} frames")
    aligned = [
        (image, estimate_transform(face.points, face.topology, predictor.spec))
        for image, face in found
    ]
    first = found[0][1]
    reference = Reference(*aligned[0], lip_points(first.points, first.topology))
    step = Fraction(1, FPS)
    return [
        SourceFrame(image, i * step, step, transform=transform, reference=reference)
        for i, (image, transform) in enumerate(aligned * count if is_photo else aligned)
    ]


@contextmanager
def timed(row: dict[str, float], stage: str, num_frames: int) -> Iterator[None]:
    """Store the milliseconds per frame that the block takes."""
    started = time.perf_counter()
    yield
    row[f"{stage}, ms"] = 1000 * (time.perf_counter() - started) / num_frames


def psnr_of_mouths(predictor: LipSyncPredictor, exact: LipSyncPredictor) -> float:
    """Return the PSNR in dB of a second of demo mouths, relative to an exact predictor."""
    sample = demo_sample(exact.spec, exact.model)
    _, autocast = place(predictor.model, predictor.options.device, predictor.options.precision)
    with torch.autocast(predictor.device.type, autocast, enabled=autocast is not None):
        mouths = generate_mouths(predictor.model, sample)
    error = mouths.float() - generate_mouths(exact.model, sample)
    return float(-10 * torch.log10(error.double().square().mean().clamp_min(1e-20)))


def show(columns: dict[str, dict[str, float]], args: argparse.Namespace) -> None:
    """Print the table."""
    title = f"{args.checkpoint} on {args.device}, {args.seconds:g} s of speech"
    table = Table("", *columns, title=title)
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        table.add_row(name, *(f"{c[name]:.4g}" if name in c else "" for c in columns.values()))
    Console(width=40 + 14 * len(columns)).print(table)


if __name__ == "__main__":
    main()
