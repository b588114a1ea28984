"""Batches and sweeps on a Ray cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.media_files import write_sample_media
from helpers.predict_command import write_checkpoint, write_speech
from helpers.tiny_training import SMALL_RUN
from skimage.data import astronaut

from talkinghead.media.writer import write_image

pytestmark = pytest.mark.slow
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")
pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")

NUM_JOBS, NUM_SHARDS = 40, 8
LAUNCHER = "hydra/launcher=ray_cluster"


@pytest.fixture
def cluster(monkeypatch):
    """Start two nodes with a processor each; yield the cluster and its second node."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    started = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    node = started.add_node(num_cpus=1)
    started.wait_for_nodes()
    yield started, node
    started.shutdown()


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "talkinghead", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _outputs(folder: Path) -> dict[str, int]:
    """Return the time of the last change of each finished output."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("out/[0-9]*.mp4")}


def test_no_output_is_lost_or_made_twice_when_a_node_is_killed(cluster, tmp_path):
    nodes, second = cluster
    write_checkpoint(tmp_path / "tiny.safetensors")
    write_image(tmp_path / "face.png", astronaut()[:256, 100:356].copy())
    write_speech(tmp_path / "speech.wav", 0.4)
    rows = [f"face.png,speech.wav,out/{number:02}.mp4" for number in range(NUM_JOBS)]
    (tmp_path / "jobs.csv").write_text("\n".join(["face,audio,output", *rows]))
    run = _start(
        tmp_path,
        *("predict", "-m", LAUNCHER, f"hydra.launcher.ray.init.address={nodes.address}"),
        *("jobs=jobs.csv", f"num_shards={NUM_SHARDS}", f"shard=range({NUM_SHARDS})"),
        *("checkpoint=tiny.safetensors", "lip_prior=none", "preset=ultrafast"),
    )
    while len(_outputs(tmp_path)) < 3 and run.poll() is None:
        time.sleep(0.1)
    nodes.remove_node(second, allow_graceful=False)
    at_kill = _outputs(tmp_path)
    shown, _ = run.communicate(timeout=400)
    assert run.returncode == 0, shown
    assert 3 <= len(at_kill) < NUM_JOBS
    finished = _outputs(tmp_path)
    assert len(finished) == NUM_JOBS
    assert {name: finished[name] for name in at_kill} == at_kill
    names = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert names == set(finished)


def test_sweep_of_trainings_runs_on_the_cluster(cluster, tmp_path):
    nodes, _ = cluster
    run = _start(
        tmp_path,
        *("train", "-m", "sweep=default", LAUNCHER),
        f"hydra.launcher.ray.init.address={nodes.address}",
        *("experiment=smoke", *SMALL_RUN, "data.seconds=1.6", "model.max_iterations=1"),
        *("callbacks.preview=null", "hydra/job_logging=none", "seed=1,2"),
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )
    shown, _ = run.communicate(timeout=400)
    assert run.returncode == 0, shown
    table = (tmp_path / "sweep/sweep.csv").read_text().splitlines()
    assert len(table) == 3


def test_corpora_are_prepared_on_the_cluster(cluster, tmp_path):
    nodes, _ = cluster
    write_sample_media(tmp_path, speech_s=1.0)
    run = _start(
        tmp_path,
        *("prepare", "-m", LAUNCHER, f"hydra.launcher.ray.init.address={nodes.address}"),
        *("input=videos", "output=first,second", "workers=0", "lip_prior=none"),
    )
    shown, _ = run.communicate(timeout=400)
    assert run.returncode == 0, shown
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("first", "second")]
    assert manifests[0].count('"id"') == 3
    assert manifests[0] == manifests[1]


def test_lost_cluster_is_reported_in_one_line(tmp_path):
    (tmp_path / "jobs.csv").write_text("face,audio,output\na.png,a.wav,a.mp4\n")
    run = _start(
        tmp_path,
        *("predict", "-m", LAUNCHER, "hydra.launcher.ray.init.address=127.0.0.1:1"),
        *("jobs=jobs.csv", "num_shards=1", "shard=0"),
    )
    shown, _ = run.communicate(timeout=120)
    assert run.returncode == 1
    last = shown.strip().splitlines()[-1]
    assert last.startswith("talkinghead: the Ray cluster at 127.0.0.1:1 cannot be reached")
