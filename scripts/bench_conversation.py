"""How long an answer takes: from the end of a question to the first picture, stage by stage.

python scripts/bench_conversation.py [--turns 5] [--audio question.wav] [--face photo.jpg]
python scripts/bench_conversation.py llm=llama tts=espeak stt.beam_size=1

The rest are overrides of conf/converse.yaml. Where no --audio is given the voice itself asks. Each
turn asks the same, with no memory of those before; the first, which also warms everything up, is
shown apart.
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

from talkinghead.cli.converse import make_conversation
from talkinghead.cli.hydra_app.overrides import to_hydra
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
    """Asks, times and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="after the first")
    parser.add_argument("--audio", type=Path, help="the question; by default the voice asks it")
    parser.add_argument("--question", default=QUESTION, help="what the voice asks")
    parser.add_argument("--face", type=Path, help="by default a photo of 512 x 512")
    parser.add_argument("--json", type=Path, help="where to write the times of each turn")
    parser.add_argument("overrides", nargs="*", help="such as llm=llama")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        face = args.face or Path(folder) / "face.png"
        if args.face is None:
            write_image(face, np.asarray(cv2.resize(read_image(demo_face()), (SIDE, SIDE))))
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("converse", to_hydra([f"face={face}", *args.overrides], "converse"))
        conversation = make_conversation(cfg)
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
    show(turns, f"{groups}, tts={voice}; {float(question.duration_s):.1f} s of question")
    print(f"start-up {start_s:.2f} s")


def measure(conversation: Conversation, question: AudioClip, output: Path) -> dict[str, float]:
    """One turn's times, in seconds after the question, and what was said."""
    conversation.history.clear()
    report = conversation.answer(question, output)
    if report.error is not None or report.video is None:
        raise SystemExit(f"the turn failed: {report.error}")
    times = {name: value for name, value in asdict(report.times).items() if value is not None}
    return {**times, "reply_s": float(report.video.duration_s)}


def show(turns: list[dict[str, float]], title: str) -> None:
    """Prints the times, a row for each stage."""
    columns = ("first turn", "median", "least", "most", "this stage alone")
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
