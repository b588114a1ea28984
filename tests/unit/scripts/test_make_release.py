"""The recipe of the released weights: its stages, and the whole recipe on drawn faces."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.media_files import write_wav

from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import (
    Character,
    make_synthetic_corpus,
    speak,
    write_synthetic_clip,
)
from talkinghead.models.checkpoint import load_expert, load_generator, load_lip_motion_network
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior
from talkinghead.types import AudioClip, AVSpec

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    import make_release

    return make_release


def test_unfinished_stages_are_run_again(runner: ModuleType, tmp_path: Path) -> None:
    calls = tmp_path / "calls"

    def stages(second_code: int) -> list[object]:
        def run(name: str, code: int = 0) -> Iterable[list[str]]:
            program = f"import sys; open({str(calls)!r}, 'a').write({name!r}); sys.exit({code})"
            yield [sys.executable, "-c", program]

        first = runner.Stage("first", 3, lambda: run("1"), lambda: {"r": 0.8125})
        return [first, runner.Stage("second", 4, lambda: run("2", second_code))]

    with pytest.raises(SystemExit, match=r"second failed with status 3: see .*second\.log"):
        runner.run_stages(tmp_path, stages(3))
    table = (tmp_path / "stages.md").read_text().splitlines()
    assert table[2].startswith("| first | 3 | 0.")
    assert table[2].endswith("| r 0.812 |")
    assert "| second |" not in table[-1]
    spent_s = json.loads((tmp_path / "stages/second.json").read_text())["seconds"]
    assert spent_s > 0
    runner.run_stages(tmp_path, stages(0))
    assert calls.read_text() == "122"
    record = json.loads((tmp_path / "stages/second.json").read_text())
    assert record["finished"]
    assert record["seconds"] > spent_s
    assert (tmp_path / "stages.md").read_text().splitlines()[-1].startswith("| total | 7 |")


def test_merged_corpus_has_the_clips_of_all(runner: ModuleType, tmp_path: Path) -> None:
    from make_release import merge_corpora

    for name, count in (("a", 2), ("b", 3)):
        make_synthetic_corpus(tmp_path / name, AVSpec(), 1, count, seconds=0.4)
    merge_corpora([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    clips = Manifest.load(tmp_path / "all").clips
    assert len(clips) == 5
    assert all((tmp_path / "all" / clip.path).is_file() for clip in clips)


def test_expected_times_sum_up_to_eight_hours(runner: ModuleType, tmp_path: Path) -> None:
    from argparse import Namespace

    from make_release import Release

    stages = Release(Namespace(output=tmp_path)).stages
    assert sum(stage.minutes for stage in stages) <= 8 * 60
    assert len({stage.name for stage in stages}) == len(stages)


@pytest.mark.slow
def test_recipe_continues_after_an_interruption(tmp_path: Path) -> None:
    people = (("grid", "s1", 4), ("grid", "s4", 2), ("grid", "s3", 1), ("addresses", "obama", 2))
    for number, (corpus, speaker, count) in enumerate(people):
        for seed in range(count):
            path = tmp_path / corpus / speaker / f"{seed}.mp4"
            write_synthetic_clip(path, 2.4, speaker=number, seed=seed)
    for number in range(2):
        rng = np.random.default_rng(number)
        samples, _ = speak(Character.of(number), Fraction(4), 16_000, rng)
        (tmp_path / "voices").mkdir(exist_ok=True)
        write_wav(tmp_path / "voices" / f"{number}.wav", AudioClip(samples, 16_000))
    output, folders = tmp_path / "release", ("grid", "addresses", "voices")
    inputs = [part for name in folders for part in (f"--{name}", str(tmp_path / name))]
    command = [sys.executable, str(SCRIPTS / "make_release.py"), *inputs, "--smoke"]
    command += ["--holdout", "s3", "--output", str(output)]
    log = output / "logs/generator.log"
    first = subprocess.Popen(command)
    while first.poll() is None and not log.is_file():
        time.sleep(0.5)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 1
    expert = (output / "train/expert/checkpoints/last.ckpt").stat().st_mtime_ns
    assert not (output / "train/generator/metrics.json").exists()
    subprocess.run(command, check=True)
    assert (output / "train/expert/checkpoints/last.ckpt").stat().st_mtime_ns == expert
    load_generator(output / "weights/compact.safetensors")
    network = load_lip_motion_network(output / "weights/lip_motion.safetensors")
    assert "LibriSpeech" in str(network.meta["trained_on"])
    load_expert(output / "weights/sync_expert.safetensors")
    WhisperLipPrior(map_path=output / "weights/whisper_lips.safetensors")
    table = (output / "stages.md").read_text()
    assert "not finished" not in table
    assert "distilled: addresses, seen, r_in_step" in table
