"""Run files written by `talkinghead export` with only numpy, onnxruntime and Pillow.

python scripts/onnx_example.py EXPORTED_FOLDER face.png lips.npy speech.wav mouths/

face.png is an aligned face (see talkinghead.features.faces.alignment.warp_face), lips.npy its lip
landmarks [20, 2] (see lip_points in the same module). speech.wav is 16-bit PCM at the model's
sample rate; a file speech.npy with a log-mel [num_mels, M] is accepted instead. The mouths are
written as mouths/0000.png and so on, one for each 25th of a second.
"""

import argparse
import json
import math
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

SILENCE = -4.0
Arrays = dict[str, np.ndarray]


def log_mel(samples: np.ndarray, av: dict[str, Any]) -> np.ndarray:
    """Return the log-mel [num_mels, M] in [-4, 4] of samples [n] in [-1, 1]."""
    half = av["n_fft"] // 2
    padded = np.pad(samples, (half, half))
    emphasised = padded - av["preemphasis"] * np.pad(padded, (1, 0))[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, av["n_fft"])[:: av["hop_length"]]
    window = np.sin(np.pi * np.arange(av["n_fft"]) / av["n_fft"]) ** 2
    magnitude = np.abs(np.fft.rfft(frames * window))
    decibel = 20 * np.log10(np.maximum(magnitude @ mel_filters(av), 1e-5)) - 20
    return np.clip((decibel + 100) * 0.08 - 4, -4, 4).T.astype(np.float32)


def mel_filters(av: dict[str, Any]) -> np.ndarray:
    """Return triangular filters [n_fft // 2 + 1, num_mels] on Slaney's mel scale."""
    step = np.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        return 15 + np.log(hertz / 1000) / step if hertz >= 1000 else hertz * 3 / 200

    mels = np.linspace(to_mel(av["fmin"]), to_mel(av["fmax"]), av["num_mels"] + 2)
    edges = np.where(mels >= 15, 1000 * np.exp(step * (mels - 15)), mels * 200 / 3)
    bins = np.linspace(0, av["sample_rate"] // 2, av["n_fft"] // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])


def audio_windows(mel: np.ndarray, num_frames: int, meta: dict[str, Any]) -> np.ndarray:
    """Return the mel windows of all frames, preceded by context and followed by look-ahead."""
    av, size = meta["av"], meta["av"]["mel_window"]
    frames = np.arange(-meta["context_frames"], num_frames + meta["lookahead_frames"])
    per_frame = av["sample_rate"] / av["hop_length"] * av["fps_den"] / av["fps_num"]
    starts = np.floor((frames + 0.5) * per_frame + 0.5).astype(int) - size // 2
    missing = (-starts[0], max(0, starts[-1] + size - mel.shape[1]))
    padded = np.pad(mel, ((0, 0), missing), constant_values=SILENCE)
    return np.stack([padded[:, s : s + size] for s in starts - starts[0]])[None]


def masked_face(face: np.ndarray, av: dict[str, Any]) -> np.ndarray:
    """Return a face [1, 3, H, W] resized to half, with the mouth region set to 0."""
    half = face.reshape(1, 3, face.shape[2] // 2, 2, face.shape[3] // 2, 2).mean(axis=(3, 5))
    rows = slice(av["mask_top"] // 2, (av["mouth_y"] + av["mouth_side"]) // 2)
    half[..., rows, av["mouth_x"] // 2 : (av["mouth_x"] + av["mouth_side"]) // 2] = 0
    return half


def open_part(folder: Path, part: str, outputs: list[str]) -> Callable[[Arrays], Arrays]:
    """Return a function that runs an exported part of the generator on named arrays."""
    session = onnxruntime.InferenceSession(str(folder / f"{part}.onnx"))
    names = [tensor.name for tensor in session.get_inputs()]
    return lambda arrays: dict(
        zip(outputs, session.run(outputs, {name: arrays[name] for name in names}), strict=True)
    )


def mouths(
    folder: Path, face: np.ndarray, lips: np.ndarray, mel: np.ndarray, chunk: int = 25
) -> np.ndarray:
    """Generate mouths uint8 [N, size, size, 3] from an aligned face uint8 [H, W, 3] and a mel."""
    meta = json.loads((folder / "talkinghead.json").read_text())
    av = meta["av"]
    if meta["input_features"] != ["mel"]:
        raise SystemExit(
            f"{folder}: this model needs {meta['input_features']}, this example computes only mel"
        )
    run = {name: open_part(folder, name, part["outputs"]) for name, part in meta["parts"].items()}
    pixels = face.transpose(2, 0, 1)[None].astype(np.float32) / 255
    arrays: Arrays = {"face": pixels, "masked_face": masked_face(pixels, av)}
    arrays["lips"] = lips[None].astype(np.float32)
    # Inputs of models with emotions or head pose: the first emotion and no head turn.
    arrays |= {"emotion": np.zeros(1, np.int64), "head_turn": np.zeros((1, 3), np.float32)}
    arrays |= run["encode_reference"](arrays)
    context = run["encode_context"](arrays)
    seconds = (mel.shape[1] - 1) * av["hop_length"] / av["sample_rate"]
    num_frames = max(1, math.ceil(seconds * av["fps_num"] / av["fps_den"]))
    arrays["audio"] = audio_windows(mel, num_frames, meta)
    past = meta["context_frames"]
    tokens = run["encode_audio"](arrays)["tokens"][0, past : past + num_frames]
    images = []
    for start in range(0, num_frames, chunk):
        arrays["tokens"] = tokens[start : start + chunk]
        # The face is still: every frame has the same context.
        arrays |= {name: np.repeat(c, len(arrays["tokens"]), 0) for name, c in context.items()}
        images.append(run["decode"](arrays)["mouth"])
    return np.rint(np.concatenate(images).transpose(0, 2, 3, 1) * 255).astype(np.uint8)


def read_wav(path: Path, sample_rate: int) -> np.ndarray:
    """Return the mono float32 samples of a 16-bit PCM file."""
    with wave.open(str(path)) as file:
        if file.getframerate() != sample_rate or file.getsampwidth() != 2:
            raise SystemExit(f"{path}: expected 16-bit PCM at {sample_rate} Hz")
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return samples.reshape(-1, file.getnchannels()).mean(1).astype(np.float32) / 32768


def main() -> None:
    """Write one PNG file per mouth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("folder", "face", "lips", "speech", "output"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    av = json.loads((args.folder / "talkinghead.json").read_text())["av"]
    is_mel = args.speech.suffix == ".npy"
    mel = np.load(args.speech) if is_mel else log_mel(read_wav(args.speech, av["sample_rate"]), av)
    size = (av["face_size"], av["face_size"])
    face = np.asarray(Image.open(args.face).convert("RGB").resize(size))
    args.output.mkdir(parents=True, exist_ok=True)
    images = mouths(args.folder, face, np.load(args.lips), mel)
    for number, mouth in enumerate(images):
        Image.fromarray(mouth).save(args.output / f"{number:04}.png")
    print(f"{args.output}: {len(images)} mouths")


if __name__ == "__main__":
    main()
