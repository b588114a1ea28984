"""Run the commands on faulty inputs and under interruptions, and print a table of the failures.

    python scripts/campaign.py --folder /tmp/campaign --inputs 300 --kills 25 --disk 50

Inputs are media files with faults (mutated containers, truncated files, wrong headers, absurd sizes
and rates, random bytes with every suffix), which are predicted with, prepared, read for scoring and
uploaded. Kills interrupt each command at random moments, after which it is run again. Disk limits
the size of written files to a random number of bytes. A count of 0 leaves a part out.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from campaign_inputs import make_inputs
from campaign_processes import COMMANDS, interrupt_at_random, run_in_environments, run_twice_at_once
from campaign_worker import STEPS, Result, Worker

FAULTS = ("traceback", "hang", "crash", "left a file", "memory")


def main() -> None:
    """Run the selected parts; exit with status 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for all files")
    parser.add_argument("--inputs", type=int, default=300, help="number of generated inputs")
    parser.add_argument("--steps", nargs="*", default=list(STEPS), choices=STEPS)
    parser.add_argument("--kills", type=int, default=25, help="SIGKILLs of each command")
    parser.add_argument("--terminations", type=int, default=3, help="SIGTERMs of each command")
    parser.add_argument("--disk", type=int, default=50, help="number of disk limits")
    parser.add_argument("--environments", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=COMMANDS)
    parser.add_argument("--limit-s", type=float, default=60.0, help="time limit of an input")
    parser.add_argument("--limit-mb", type=float, default=4096.0, help="memory limit of an input")
    parser.add_argument("--minutes", type=float, default=600.0, help="maximum time for the inputs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    rows, faults = [], []
    for name, tried, found in run(options):
        rows.append({"part": name, "tried": tried, "faults": len(found)})
        faults += found
        sys.stderr.write(f"{name}: {tried} tried, {len(found)} faults\n")
        sys.stderr.writelines(f"  {fault}\n" for fault in found)
    report = {"seed": options.seed, "rows": rows, "faults": faults}
    (options.folder / "report.json").write_text(json.dumps(report, indent=1))
    sys.stdout.write(table(rows))
    sys.exit(bool(faults))


def run(options: argparse.Namespace) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the name of each part, the number of trials, and the faults."""
    if options.inputs or options.disk:
        with worker(options) as steps:
            if options.inputs:
                yield from try_inputs(steps, options)
            if options.disk:
                yield "disk full", options.disk, try_full_disks(steps, options)
    for number, count in ((signal.SIGKILL, options.kills), (signal.SIGTERM, options.terminations)):
        for command in options.commands if count else ():
            folder = options.folder / f"{number.name}_{command}"
            found = interrupt_at_random(command, count, number, folder, options.seed)
            yield f"{number.name}, {command}", count, found
    if options.environments:
        yield "two runs on one output", 1, run_twice_at_once(options.folder / "twice")
        for name, found in run_in_environments(options.folder / "environments").items():
            yield name, 1, found


@contextmanager
def worker(options: argparse.Namespace) -> Iterator[Worker]:
    """Yield a worker with intact inputs."""
    make_inputs(options.folder / "worker", 0, options.seed)
    intact = options.folder / "worker" / "intact"
    with closing(Worker(intact / "face.jpg", intact / "speech.wav", options.limit_s)) as steps:
        yield steps


def try_inputs(steps: Worker, options: argparse.Namespace) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the results of each step on the inputs, as many as the time allows."""
    inputs = make_inputs(options.folder / "inputs", options.inputs, options.seed)
    until_s = time.monotonic() + 60 * options.minutes
    results: dict[str, list[Result]] = {step: [] for step in options.steps}
    faults: dict[str, list[str]] = {step: [] for step in options.steps}
    for number, item in enumerate(inputs):
        if time.monotonic() > until_s:
            break
        for step in options.steps:
            folder = options.folder / "outputs" / step / str(number)
            result = steps.run(step, item.path, folder)
            if result.kind in ("done", "refused") and result.peak_mb > options.limit_mb:
                result = replace(result, kind="memory")
            results[step].append(result)
            if result.kind in FAULTS:
                fault = f"{step} {item.path.name} ({item.fault}): {result.kind}: {result.message}"
                faults[step].append(fault)
                sys.stderr.write(f"  {fault}\n")
    for step, found in results.items():
        counts = Counter(result.kind for result in found)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        slowest_s = max((result.seconds for result in found), default=0)
        peak_mb = max((result.peak_mb for result in found), default=0)
        name = f"inputs, {step} ({kinds}; at most {slowest_s:.1f} s, {peak_mb:.0f} MB)"
        yield name, len(found), faults[step]


def try_full_disks(steps: Worker, options: argparse.Namespace) -> list[str]:
    """Limit the size of written files to random numbers of bytes, and return the faults."""
    rng, faults = np.random.default_rng(options.seed), []
    video = options.folder / "worker" / "intact" / "video.mp4"
    for number in range(options.disk):
        step = ("predict", "prepare", "upload")[number % 3]
        limit = int(rng.integers(0, video.stat().st_size))
        folder = options.folder / "outputs" / "disk" / str(number)
        result = steps.run(step, video, folder, limit)
        targets = [
            path.name for path in folder.rglob("*") if path.suffix in (".mp4", ".safetensors")
        ]
        if result.kind in FAULTS:
            faults.append(f"{step}, {limit} bytes: {result.kind}: {result.message}")
        elif result.kind == "refused" and targets:
            faults.append(f"{step}, {limit} bytes: left {targets[0]}")
    return faults


def table(rows: list[dict[str, object]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| part | tried | faults |", "|---|---|---|"]
    lines += [f"| {row['part']} | {row['tried']} | {row['faults']} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    started_s = time.monotonic()
    try:
        main()
    finally:
        sys.stderr.write(f"{time.monotonic() - started_s:.0f} s\n")
