"""Measure the latency of a voice with concurrent callers, and the time that a cancellation takes.

python scripts/bench_voice.py [--callers 1 2 4] [--turns 8]
python scripts/bench_voice.py tts=coqui tts.model=model.pth

Each caller speaks one reply of three sentences after another. The time of the first audio is that
of a reply's first sentence. Further arguments are overrides of conf/converse.yaml.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Timer

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table

from talkinghead.cli.hydra_app.overrides import to_hydra
from talkinghead.paths import conf_dir
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.speech.sentence_speech import stream_sentences
from talkinghead.types import FloatArray

SENTENCES = [
    "The weather is beautiful in the mountains today.",
    "My brother bought seven yellow bananas at the market.",
    "Please open the window before the music starts.",
    "I would like a cup of coffee with milk.",
    "Nobody answered the telephone last night.",
]
LONG = (
    "This is a long sentence in which a speaker explains a complicated matter, with several "
    "clauses and many words, so that it lasts for ten seconds or even longer than that."
)


def main() -> None:
    """Run the measurements and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--turns", type=int, default=8, help="replies per caller")
    parser.add_argument("--cancels", type=int, default=20, help="number of cancelled sentences")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", help="such as tts=coqui")
    args = parser.parse_args()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("converse", to_hydra(["face=none", *args.overrides], "converse"))
    voice = instantiate(cfg.voice)
    list(voice.speak(LONG))
    rows = {
        f"{n} callers, {state}": measure_callers(voice, n, args.turns)
        for n in args.callers
        for state in (("first", "loaded") if n > 1 else ("loaded",))
    }
    show("first audio of a reply (s)", rows)
    rng = np.random.default_rng(args.seed)
    show("cancellation (s)", measure_cancels(voice, args.cancels, rng))


def measure_callers(voice: TextToSpeech, num_callers: int, num_turns: int) -> list[float]:
    """Return the times from the start of each reply to its first audio, in seconds."""

    def speak_replies(caller: int) -> list[float]:
        times_s = []
        for turn in range(num_turns):
            started_s = time.monotonic()
            for index in range(3):
                list(voice.speak(SENTENCES[(caller + turn + index) % len(SENTENCES)]))
                if index == 0:
                    times_s.append(time.monotonic() - started_s)
        return times_s

    with ThreadPoolExecutor(num_callers) as threads:
        return [
            time_s
            for times_s in threads.map(speak_replies, range(num_callers))
            for time_s in times_s
        ]


def measure_cancels(
    voice: TextToSpeech, num_cancels: int, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Cancel sentences at random times; return times until the speech ends, and until the next."""

    def stream(text: str, cancel: Event) -> Iterator[FloatArray]:
        return stream_sentences([text], voice, cancel=cancel)

    ways = {"cancel to the end of speak": voice.speak, "... of stream_sentences": stream}
    rows: dict[str, list[float]] = {name: [] for name in (*ways, "next sentence, spoken at once")}
    for _ in range(num_cancels):
        for name, speak in ways.items():
            rows[name].append(_cancel(speak, rng.uniform(0.05, 0.5)))
            started_s = time.monotonic()
            list(voice.speak(SENTENCES[0]))
            rows["next sentence, spoken at once"].append(time.monotonic() - started_s)
    return rows


def _cancel(speak: Callable[[str, Event], Iterator[FloatArray]], after_s: float) -> float:
    """Return the time from the cancellation to the end of the iterator, in seconds."""
    cancel, cancelled_s = Event(), 0.0

    def stop() -> None:
        nonlocal cancelled_s
        cancelled_s = time.monotonic()
        cancel.set()

    Timer(after_s, stop).start()
    list(speak(LONG, cancel))
    if not cancel.is_set():
        raise SystemExit(f"the sentence was spoken before it was cancelled after {after_s:.2f} s")
    return time.monotonic() - cancelled_s


def show(title: str, rows: dict[str, list[float]]) -> None:
    """Print the median, 95th percentile and maximum of each row."""
    table = Table("", "p50", "p95", "max", title=title)
    for name, values in rows.items():
        table.add_row(name, *(f"{np.percentile(values, q):.3f}" for q in (50, 95, 100)))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
