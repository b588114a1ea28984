"""Make the released weights: generator, sync expert and two lip priors.

python scripts/make_release.py --grid grid --addresses addresses --voices voices --output release

GRID and the addresses are folders of videos with one subfolder per speaker, the voices a folder of
speech. The stages run commands of this project one after another. The same command continues an
interrupted run: finished stages are skipped, and trainings resume from their last checkpoint.

The output has the weights (OUTPUT/weights), a log of each stage (OUTPUT/logs) and a table of what
each stage cost and gave (OUTPUT/stages.md).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from talkinghead.data.manifest import Manifest, write_json
from talkinghead.media.reader import list_video_files, probe

SCRIPTS = Path(__file__).parent
RECORD_EVERY_S = 10.0
CORPUS_WEIGHTS = ("--weights", "0.7", "0.3")
LICENSE = "CC-BY-4.0"
TRAINED_ON = (
    "LibriSpeech (Panayotov et al., 2015, openslr.org/12, CC BY 4.0), GRID (Cooke et al., 2006, "
    "doi:10.5281/zenodo.3625687, CC BY 4.0) and addresses by presidents of the United States"
)
MIN_SPEECH_S = 1.5
SMOKE_CLIPS = 3  # Maximum number of clips of each speaker with --smoke.
SMOKE_TRAINING = (
    *("model.max_iterations=2", "data.batch_size=2", "data.num_workers=0", "data.val_windows=2"),
    *("data.iterations_per_epoch=2", "callbacks.opening=null", "callbacks.preview=null"),
    "logger=csv",
)
TRAINING_SCORES = ("val/loss", "val/opening_r", "val_test/opening_r", "val/sync", "val/lips_l1")

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Stage:
    """A part of the recipe with a time budget in minutes on two CPU cores.

    Attributes:
        name: name of the stage.
        minutes: expected time; trainings and the distillation end when they reach it.
        commands: returns the commands; called when the earlier stages have ended.
        scores: returns the main scores of the finished stage.
    """

    name: str
    minutes: int
    commands: Callable[[], Iterable[Command]]
    scores: Callable[[], dict[str, Any]] = dict


def run_stages(output: Path, stages: Sequence[Stage]) -> None:
    """Run the unfinished stages, and update the table after each."""
    for stage in stages:
        record = _read_record(output, stage)
        if record["finished"]:
            continue
        print(f"{stage.name}: expected {stage.minutes} min", flush=True)
        try:
            for command in stage.commands():
                _run(command, output, stage, record)
            record.update(finished=True, scores=stage.scores())
            _write_record(output, stage, record)
        finally:
            write_table(output, stages)
        print(f"{stage.name}: {record['seconds'] / 60:.1f} min {record['scores']}", flush=True)


def write_table(output: Path, stages: Sequence[Stage]) -> None:
    """Write the time and the scores of each stage to OUTPUT/stages.md."""
    lines = ["| stage | expected, min | spent, min | scores |", "|---|---|---|---|"]
    total_s = 0.0
    for stage in stages:
        record = _read_record(output, stage)
        total_s += record["seconds"]
        scores = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in record["scores"].items()
        )
        state = scores if record["finished"] else "not finished"
        spent = f"{record['seconds'] / 60:.1f}"
        lines.append(f"| {stage.name} | {stage.minutes} | {spent} | {state} |")
    expected = sum(stage.minutes for stage in stages)
    lines.append(f"| total | {expected} | {total_s / 60:.1f} | |")
    (output / "stages.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _run(command: Command, output: Path, stage: Stage, record: dict[str, Any]) -> None:
    """Run a command, and add its time to the record while it runs."""
    log_path = output / "logs" / f"{stage.name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    before_s, started_s = record["seconds"], time.monotonic()
    with log_path.open("ab") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
        try:
            code = None
            while code is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(RECORD_EVERY_S)
                record["seconds"] = before_s + time.monotonic() - started_s
                _write_record(output, stage, record)
        finally:
            process.terminate()
            process.wait()
    if code:
        sys.exit(f"{stage.name} failed with status {code}: see {log_path}, then run this again")


def _read_record(output: Path, stage: Stage) -> dict[str, Any]:
    path = output / "stages" / f"{stage.name}.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {"seconds": 0.0, "finished": False, "scores": {}}


def _write_record(output: Path, stage: Stage, record: dict[str, Any]) -> None:
    write_json(output / "stages" / f"{stage.name}.json", record)


def talkinghead(command: str, **values: object) -> list[str]:
    """Return a command of this project with its settings."""
    settings = [f"{key}={value}" for key, value in values.items()]
    return [sys.executable, "-m", "talkinghead", command, *settings]


def script(name: str, *arguments: str | Path) -> Command:
    """Return the command of a script of this folder."""
    return [sys.executable, SCRIPTS / f"{name}.py", *arguments]


class Release:
    """The stages of a release and their files in the output folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.output = args, args.output.resolve()
        self.weights, self.corpora = self.output / "weights", self.output / "corpora"
        self.prior = self.weights / "whisper_lips.safetensors"
        self.distilled = self.weights / "lip_motion.safetensors"
        self.stages = (
            Stage("grid", 8, self._prepare_grid, lambda: self._count("grid")),
            Stage("addresses", 3, self._prepare_addresses, lambda: self._count("addresses")),
            Stage("prior", 22, self._fit_prior),
            Stage("align", 6, self._align, self._offsets),
            self._training("expert", 22, init_from=None, sync_expert=None),
            self._training("generator", 115, init_from=None),
            self._training("sharp", 45, init_from="generator"),
            self._training("gan", 95, init_from="sharp"),
            Stage("export", 1, self._export),
            Stage("distil", 125, self._distil, self._distillation_scores),
            Stage("evaluate", 30, self._evaluate, self._evaluation_scores),
        )

    def _prepare_grid(self) -> Iterable[Command]:
        videos = self._link_videos("grid", self.args.grid)
        holdout = f"holdout_speakers=[{','.join(self.args.holdout)}]"
        command = talkinghead("prepare", input=videos, output=self.corpora / "grid")
        yield [*command, holdout]

    def _prepare_addresses(self, *options: str) -> Iterable[Command]:
        videos = self._link_videos("addresses", self.args.addresses)
        output = self.corpora / "addresses"
        yield [*talkinghead("prepare", input=videos, output=output), *options]

    def _fit_prior(self) -> Iterable[Command]:
        yield script("fit_whisper_prior", *self._both, *CORPUS_WEIGHTS, "--output", self.prior)

    def _align(self) -> Iterable[Command]:
        yield from self._prepare_addresses("lip_prior=whisper", f"lip_prior.map_path={self.prior}")
        merge_corpora(self._both, self.corpora / "all")

    def _training(self, name: str, minutes: int, **sources: str | None) -> Stage:
        """Return a training stage that starts from the checkpoints of other stages."""

        def commands() -> Iterable[Command]:
            folder, given = self.output / "train" / name, {"sync_expert": "expert"} | sources
            command = talkinghead("train", experiment=f"release_{name}", seed=self.args.seed)
            command += [f"data.corpus_dir={self.corpora / 'all'}", f"hydra.run.dir={folder}"]
            command += [f"model.{k}={self._checkpoint(v)}" for k, v in given.items() if v]
            command += [f"trainer.max_time=00:{minutes // 60:02}:{minutes % 60:02}:00"]
            command += [*(SMOKE_TRAINING if self.args.smoke else ()), *self.args.train]
            yield command + ["ckpt_path=last"] * self._checkpoint(name).is_file()

        return Stage(name, minutes, commands, lambda: self._training_scores(name))

    def _export(self) -> Iterable[Command]:
        expert = self.weights / "sync_expert.safetensors"
        yield script("export_release", self._checkpoint("gan"), "--output", self._generator)
        kind = "--kind", "sync_expert"
        yield script("export_release", self._checkpoint("expert"), *kind, "--output", expert)

    def _distil(self) -> Iterable[Command]:
        options = "--map", self.prior, "--seed", str(self.args.seed), "--license", LICENSE
        # Reading the recordings is not part of the limited time.
        limits = ["--max-minutes", "95"] + ["--iterations", "2"] * self.args.smoke
        files = "--state", self.output / "train/distil", "--output", self.distilled
        inputs = self.args.voices, *self._both, *CORPUS_WEIGHTS, "--trained-on", TRAINED_ON
        yield script("distil_lip_prior", *inputs, *options, *limits, *files)

    def _evaluate(self) -> Iterable[Command]:
        given = []
        if self.args.align is not None:
            closures = self.output / "sounds.csv"
            yield script("grid_closures", self.args.align, closures)
            given = [f"closures={closures}"]
        corpora = f"corpus=[{','.join(map(str, self._both))}]"
        given += ["max_clips=1", "max_frames=10", "lpips=false"] if self.args.smoke else []
        priors = {
            "whisper": ["lip_prior=whisper", f"lip_prior.map_path={self.prior}"],
            "distilled": ["lip_prior=distilled", f"lip_prior.weights={self.distilled}"],
        }
        for name, prior in priors.items():
            output = self.output / "scores" / name
            command = talkinghead("evaluate", checkpoint=self._generator, output=output)
            yield [*command, corpora, *prior, *given, "require_audio_dependence=false"]

    @property
    def _both(self) -> list[Path]:
        return [self.corpora / "grid", self.corpora / "addresses"]

    @property
    def _generator(self) -> Path:
        return self.weights / "compact.safetensors"

    def _checkpoint(self, stage: str) -> Path:
        return self.output / "train" / stage / "checkpoints" / "last.ckpt"

    def _link_videos(self, name: str, source: Path) -> Path:
        """Return a new folder with links to the videos that contain speech."""
        target, count = self.output / "videos" / name, SMOKE_CLIPS if self.args.smoke else None
        for speaker in sorted(path for path in source.resolve().iterdir() if path.is_dir()):
            videos = (path for path in list_video_files(speaker) if _has_speech(path))
            for video in islice(videos, count):
                link = target / video.relative_to(source.resolve())
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(video)
        return target

    def _count(self, corpus: str) -> dict[str, Any]:
        manifest = Manifest.load(self.corpora / corpus)
        return {split: len(manifest.split(split)) for split in ("train", "val", "test")}

    def _offsets(self) -> dict[str, Any]:
        clips = Manifest.load(self.corpora / "addresses").clips
        known = [(c.offset_frames, c.sync_confidence) for c in clips if c.offset_frames is not None]
        if not known:
            return {"measured": 0}
        offset, r = np.mean(np.abs(np.array(known, float)), axis=0)
        return {"measured": len(known), "offset, frames": float(offset), "r": float(r)}

    def _training_scores(self, name: str) -> dict[str, Any]:
        metrics = json.loads((self.output / "train" / name / "metrics.json").read_text())
        return {key: metrics[key] for key in TRAINING_SCORES if key in metrics}

    def _distillation_scores(self) -> dict[str, Any]:
        return dict(json.loads((self.output / "train/distil/scores.json").read_text()))

    def _evaluation_scores(self) -> dict[str, Any]:
        found = {}
        for name in ("whisper", "distilled"):
            report = json.loads((self.output / "scores" / name / "scores.json").read_text())
            for part, groups in report["by_corpus"].items():
                for group, summary in groups.items():
                    score = summary["scores"]["r_in_step"]["mean"]
                    found[f"{name}: {part}, {group}, r_in_step"] = score
        return found


def _has_speech(video: Path) -> bool:
    """Return whether a video has audio and is not a recording of a pause."""
    info = probe(video)
    return info.has_audio and (info.duration_s or 0) >= MIN_SPEECH_S


def merge_corpora(corpora: Sequence[Path], target: Path) -> None:
    """Write a manifest of the clips of several corpora, without copying them."""
    manifests = [Manifest.load(corpus) for corpus in corpora]
    clips = tuple(
        replace(clip, path=f"../{corpus.name}/{clip.path}")
        for corpus, manifest in zip(corpora, manifests, strict=True)
        for clip in manifest.clips
    )
    replace(manifests[0], clips=clips, skipped=(), split_options=None).save(target)


def main() -> None:
    """Run the stages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--grid", type=Path, required=True, help="videos of GRID")
    parser.add_argument("--addresses", type=Path, required=True, help="videos of addresses")
    parser.add_argument("--voices", type=Path, required=True, help="speech of many people")
    parser.add_argument("--align", type=Path, help="word times of GRID, for the closure rate")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--holdout", nargs="*", default=["s3", "s23", "s32"], help="unseen people")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", nargs="*", default=[], help="options of all trainings")
    parser.add_argument("--smoke", action="store_true", help="few clips and iterations, as a test")
    args = parser.parse_args()
    # End the running command when this process is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("interrupted: the same command continues"))
    release = Release(args)
    run_stages(release.output, release.stages)
    print(f"weights: {release.weights}; table: {release.output / 'stages.md'}")


if __name__ == "__main__":
    main()
