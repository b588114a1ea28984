"""Measure the time from the end of a question to the first frame of the answer, by stage.

python scripts/bench_conversation.py [--turns 5] [--audio question.wav] [--face photo.jpg]
python scripts/bench_conversation.py llm=llama tts=espeak stt.beam_size=1

Further arguments are overrides of conf/converse.yaml. Without --audio the question is synthesised
with the configured voice. Each turn asks the same question with an empty history; the first turn,
which includes warm-up, is reported separately.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table

from talkinghead.cli.hydra_app.overrides import to_hydra
from talkinghead.cli.shared.builders import build_conversation
from talkinghead.media.reader import read_audio, read_image
from talkinghead.media.writer import write_image
from talkinghead.paths import conf_dir, demo_face
from talkinghead.speech.conversation import Conversation
from talkinghead.speech.sentence_speech import speak_text
from talkinghead.types import AudioClip

QUESTION = "What can you tell me about the weather today?"
SAMPLE_RATE = 16_000
SIDE = 512


def main() -> None:
    """Run the turns and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="number of turns after the first")
    parser.add_argument("--audio", type=Path, help="a recorded question")
    parser.add_argument("--question", default=QUESTION, help="text of the synthesised question")
    parser.add_argument("--face", type=Path, help="default: a 512 x 512 photo")
    parser.add_argument("--json", type=Path, help="file to write the times of each turn to")
    parser.add_argument("overrides", nargs="*", help="such as llm=llama")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        face = args.face or Path(folder) / "face.png"
        if args.face is None:
            write_image(face, np.asarray(cv2.resize(read_image(demo_face()), (SIDE, SIDE))))
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("converse", to_hydra([f"face={face}", *args.overrides], "converse"))
        conversation = build_conversation(cfg)
        start_s = time.monotonic() - started
        if args.audio is None:
            speech = speak_text(args.question, instantiate(cfg.voice)).read(SAMPLE_RATE)
            question = AudioClip(np.concatenate(list(speech)), SAMPLE_RATE)
        else:
            question = read_audio(args.audio, SAMPLE_RATE)
        turns = [
            measure(conversation, question, Path(folder) / "answer.mp4")
            for _ in range(args.turns + 1)
        ]
    if args.json:
        args.json.write_text(json.dumps(turns, indent=1))
    groups = ", ".join(f"{name}={cfg[name]._target_.rpartition('.')[2]}" for name in ("stt", "llm"))
    voice = cfg.tts._target_.rpartition(".")[2]
    show(turns, f"{groups}, tts={voice}; question of {float(question.duration_s):.1f} s")
    print(f"start-up {start_s:.2f} s")


def measure(conversation: Conversation, question: AudioClip, output: Path) -> dict[str, float]:
    """Return the times of one turn, in seconds after the question, and the reply duration."""
    conversation.history.clear()
    report = conversation.answer(question, output)
    if report.error is not None or report.video is None:
        raise SystemExit(f"the turn failed: {report.error}")
    times = {name: value for name, value in asdict(report.times).items() if value is not None}
    return {**times, "reply_s": float(report.video.duration_s)}


def show(turns: list[dict[str, float]], title: str) -> None:
    """Print the times, one row per stage."""
    columns = ("first turn", "median", "min", "max", "stage alone")
    table = Table("seconds after the question", *columns, title=title)
    first, *others = turns
    before = dict.fromkeys(range(len(others)), 0.0)
    for name, value in first.items():
        values = [turn[name] for turn in others] or [value]
        cells = [f"{v:.2f}" for v in (value, median(values), min(values), max(values))]
        if name != "reply_s":
            alone = [v - before.get(i, 0.0) for i, v in enumerate(values)]
            before = dict(enumerate(values))
            cells.append(f"{median(alone):.2f}")
        table.add_row(name[:-2].replace("_", " "), *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
