"""Compare lip-sync systems: run each on the same inputs, score all, and time them on this machine.

    python scripts/scoreboard.py inputs/ output/ --systems ours still wav2lip musetalk latentsync

`inputs/` has pairs of a face and speech with the same name, such as `a.mp4` and `a.wav`; with
`--references`, a folder with the real videos, all systems are scored by `talkinghead score`.
Without it, each video of `inputs/` is its own reference: its audio drives its own face.

A system is an adapter: a YAML file in scripts/scoreboard/ (or the path of another one) with a
command. Systems whose requirements are missing are listed with what is needed to run them.
Results: `output/scoreboard.md`, `output/scoreboard.json`, `output/<system>/*.mp4` and the report of
`talkinghead score` in `output/scores/`.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.evaluation.system_scores import ScoreOptions, score_systems
from talkinghead.media.container import container_duration_s, open_input

ADAPTERS = Path(__file__).parent / "scoreboard"
FACES, SPEECH = (".mp4", ".mov", ".mkv", ".png", ".jpg"), (".wav", ".flac", ".mp3", ".m4a")
SCORES = ("r_own", "r_in_step", "motion_ratio", "lmd", "psnr", "ssim", "sharpness_ratio", "lse_d")
TIMEOUT_S = 3600
# Lines of a failed command that are shown.
NUM_LINES = 3


@dataclass(frozen=True)
class Adapter:
    """How to run a system.

    Attributes:
        name: Name of the system.
        command: Command with the placeholders {face}, {audio}, {output}, {python},
            {home} and {adapters}, the folder of the packaged adapters.
        home: Folder of the system's own code, if it has one.
        requires: Files in `home` that must exist.
        needs: What to do to run the system, in a line or two.
        citation: Paper or address of the system.
    """

    name: str
    command: str
    home: str | None = None
    requires: tuple[str, ...] = ()
    needs: str = ""
    citation: str = ""

    @classmethod
    def load(cls, name: str, homes: Mapping[str, str]) -> Adapter:
        """Read an adapter by the name of a packaged one or by its path."""
        path = ADAPTERS / f"{name}.yaml" if "/" not in name else Path(name)
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in ADAPTERS.glob("*.yaml")))
            raise UsageError(f"no adapter {path}: give one of {known}, or the path of a YAML file")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        try:
            values["requires"] = tuple(values.get("requires", ()))
            adapter = cls(**{"name": path.stem, **values})
        except TypeError as error:
            raise UsageError(f"{path}: {error}; see scripts/scoreboard/wav2lip.yaml") from error
        home = homes.get(adapter.name, adapter.home)
        return cls(**{**vars(adapter), "home": home})

    def missing(self) -> list[str]:
        """Return the files that are missing to run the system."""
        if self.requires and self.home is None:
            return ["its folder (--home NAME=FOLDER)"]
        home = Path(self.home or ".").expanduser()
        return [name for name in self.requires if not (home / name).exists()]

    def arguments(self, face: Path, audio: Path, output: Path) -> list[str]:
        """Return the command for one pair of inputs."""
        home = Path(self.home or ".").expanduser().resolve()
        values = {"face": face, "audio": audio, "output": output, "home": home}
        values |= {"python": sys.executable, "adapters": ADAPTERS}
        words = shlex.split(self.command)
        for name, value in values.items():
            words = [word.replace(f"{{{name}}}", str(value)) for word in words]
        return words


@dataclass
class Result:
    """Result of a system: times, scores and failures."""

    name: str
    seconds: list[float] = field(default_factory=list)
    speech_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    needs: str = ""
    scores: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Run the systems, score their videos, and write the table."""
    arguments = parse_arguments()
    homes = dict(item.split("=", 1) for item in arguments.home)
    try:
        pairs = list(find_pairs(arguments.inputs))
        adapters = [Adapter.load(name, homes) for name in arguments.systems]
        results = [run_system(adapter, pairs, arguments.output) for adapter in adapters]
        made = {r.name: arguments.output / r.name for r in results if r.seconds}
        if made:
            references = arguments.references or arguments.inputs
            add_scores(results, made, references, arguments.output / "scores")
    except TalkingHeadError as error:
        sys.exit(f"scoreboard: {error}")
    table = format_table(results, adapters, len(pairs))
    (arguments.output / "scoreboard.md").write_text(table, encoding="utf-8")
    content = json.dumps([vars(result) for result in results], indent=2)
    (arguments.output / "scoreboard.json").write_text(content, encoding="utf-8")
    print(table)


def parse_arguments() -> argparse.Namespace:
    """Return the command line arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", type=Path, help="folder with pairs such as a.mp4 and a.wav")
    parser.add_argument("output", type=Path, help="folder of the results")
    parser.add_argument("--systems", nargs="+", default=["ours", "still"])
    parser.add_argument("--references", type=Path, help="folder with the real videos")
    parser.add_argument(
        "--home", action="append", default=[], metavar="NAME=FOLDER", help="folder of a system"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    return arguments


def find_pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield faces and speech with the same name; a video without speech has its own."""
    faces = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix in FACES}
    speech = {path.stem: path for path in folder.glob("*") if path.suffix in SPEECH}
    if not faces:
        raise UsageError(f"{folder} has no faces ({', '.join(FACES)})")
    for name, face in faces.items():
        yield face.resolve(), speech.get(name, face).resolve()


def run_system(adapter: Adapter, pairs: list[tuple[Path, Path]], output: Path) -> Result:
    """Run a system on all pairs, and return its times and failures."""
    result = Result(adapter.name)
    if missing := adapter.missing():
        result.needs = f"missing: {', '.join(missing)}. {adapter.needs}"
        return result
    for face, audio in pairs:
        target = (output / adapter.name / f"{face.stem}.mp4").resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        command = adapter.arguments(face, audio, target)
        start_s = time.monotonic()
        try:
            done = subprocess.run(
                command,
                cwd=adapter.home and Path(adapter.home).expanduser(),
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_S,
            )
            failure = done.stderr if done.returncode or not target.is_file() else None
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = str(error)
        if failure is not None:
            reason = " | ".join(failure.strip().splitlines()[-NUM_LINES:]) or "no output file"
            result.failures.append(f"{face.stem}: {reason}")
            continue
        result.seconds.append(time.monotonic() - start_s)
        with open_input(audio) as container:
            result.speech_s += float(container_duration_s(container) or Fraction(0))
    return result


def add_scores(
    results: list[Result], made: Mapping[str, Path], references: Path, output: Path
) -> None:
    """Score the videos of all systems against the real videos."""
    content = score_systems(made, references, output, ScoreOptions())
    for result in results:
        scores: dict[str, Any] = content["systems"].get(result.name, {}).get("scores", {})
        means = {name: scores.get(name, {}).get("mean") for name in SCORES}
        result.scores = {name: mean for name, mean in means.items() if mean is not None}


def format_table(results: list[Result], adapters: list[Adapter], num_pairs: int) -> str:
    """Return the scoreboard as Markdown."""
    ran = [result for result in results if result.seconds]
    names = [name for name in SCORES if any(name in result.scores for result in ran)]
    lines = [
        f"# Scoreboard, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{num_pairs} inputs; {platform.processor() or platform.machine()}, {platform.system()}. "
        "Times are of whole commands, with start-up. Scores: docs/metrics.md.",
        "",
        f"| system | clips | s per s of speech | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for result in ran:
        cells = [f"{result.scores[n]:.3g}" if n in result.scores else "" for n in names]
        speed = f"{sum(result.seconds) / max(result.speech_s, 1e-9):.1f}"
        lines.append(f"| {result.name} | {len(result.seconds)} | {speed} | {' | '.join(cells)} |")
    lines += [f"\n- {r.name}: failed on {failure}" for r in results for failure in r.failures]
    citations = {adapter.name: adapter.citation for adapter in adapters}
    for result in results:
        if result.needs:
            lines += [
                "",
                f"**{result.name}** ({citations[result.name]}) was not run: {result.needs}",
            ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
