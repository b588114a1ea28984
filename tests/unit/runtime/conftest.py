"""Checkpoints of small random generators, and their exports."""

import pytest
import torch
from helpers.small_predictor import GENERATOR, SPEC

from talkinghead.models.checkpoint import build, save_release
from talkinghead.runtime.export.exporter import export_generator


def make_checkpoint(path, **arguments):
    """Save a random generator whose zero-initialised layers have random weights."""
    torch.manual_seed(0)
    arguments = {**GENERATOR, **arguments}
    model = build("generator", arguments, SPEC)
    weights = [model.decoder.head.weight]
    if model.emotion:
        weights += [model.emotion.table.weight, model.pose.layers[-1].weight]
    for weight in weights:
        torch.nn.init.normal_(weight, std=0.1)
    meta = {"generator": arguments, "av": SPEC.to_dict(), "license": "none"}
    save_release(path, "generator", model, {**meta, "trained_on": "nothing"})
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("release") / "tiny.safetensors")


@pytest.fixture(scope="session")
def conditioned_checkpoint(tmp_path_factory):
    """A generator with emotions and head pose."""
    path = tmp_path_factory.mktemp("release") / "conditioned.safetensors"
    return make_checkpoint(path, emotions=["calm", "joy"], head_pose=True)


@pytest.fixture(scope="session")
def conditioned_folder(conditioned_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "conditioned"
    export_generator(conditioned_checkpoint, folder, "torchscript")
    return folder
