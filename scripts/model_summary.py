"""Print the number of parameters and the GFLOP per frame of the networks.

python scripts/model_summary.py [compact base sync_expert ...]
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from talkinghead.features.faces.alignment import NUM_LIP_POINTS, masked_face
from talkinghead.models.checkpoint import EXPERT, GENERATOR, LIP_REGRESSOR, build
from talkinghead.models.discriminator import Discriminator
from talkinghead.paths import conf_dir
from talkinghead.types import AVSpec


def gflop(call: Any, *arguments: Any) -> float:
    """Return the cost of a call in 10^9 floating-point operations (a multiply-add is two)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*arguments)
    return counter.get_total_flops() / 1e9


def rows_of(name: str) -> list[tuple[str, nn.Module, float, str]]:
    """Return (name, network, GFLOP per unit, unit) for each part of a model in conf/model."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [f"model={name}", "data.corpus_dir=none"])
    spec = AVSpec()
    mouths = torch.rand(1, 3, spec.mouth_size, spec.mouth_size)
    if LIP_REGRESSOR in cfg.model:
        regressor = build(
            LIP_REGRESSOR, OmegaConf.to_container(cfg.model.lip_regressor), spec
        ).eval()  # type: ignore[arg-type]
        return [("lip regressor", regressor, gflop(regressor, mouths), "mouth")]
    if GENERATOR not in cfg.model:
        options: Any = OmegaConf.to_container(cfg.model.sync_expert)
        expert: Any = build(EXPERT, options, spec).eval()
        frames = mouths.expand(expert.num_frames, -1, -1, -1).unsqueeze(0)
        audio = torch.zeros(1, expert.num_frames, spec.num_mels, spec.mel_window)
        return [("sync expert", expert, gflop(expert, frames, mouths, audio), "window")]
    options = OmegaConf.to_container(cfg.model.generator)
    model: Any = build(GENERATOR, options, spec).eval()
    discriminator = Discriminator(
        cfg.model.discriminator.channels, cfg.model.discriminator.face_channels
    ).eval()
    face = torch.rand(1, 3, spec.face_size, spec.face_size)
    lips = torch.zeros(1, NUM_LIP_POINTS, 2)
    audio = torch.zeros(1, 50, spec.num_mels, spec.mel_window)
    with torch.no_grad():
        reference = model.encode_reference(face, lips)
        masked = masked_face(face, spec)
        context = model.encode_context(masked, reference)
        tokens = model.encode_audio(audio, reference)[0, :1]
    audio_path = nn.ModuleList([model.audio_encoder, model.transformer])
    return [
        ("generator", model, float("nan"), ""),
        ("  face encoder", model.face_encoder, gflop(model.encode_reference, face, lips), "face"),
        (
            "  context encoder",
            model.context_encoder,
            gflop(model.encode_context, masked, reference),
            "pose",
        ),
        (
            "  audio encoder, transformer",
            audio_path,
            gflop(model.encode_audio, audio, reference) / 50,
            "frame",
        ),
        ("  decoder", model.decoder, gflop(model.decode, tokens, reference, context), "frame"),
        ("discriminator", discriminator, gflop(discriminator, mouths, masked), "frame"),
    ]


def main(names: list[str]) -> None:
    """Print a table for each configuration name."""
    for name in names:
        table = Table("part", "parameters (M)", "GFLOP", "per", title=name)
        for part, network, cost, unit in rows_of(name):
            millions = sum(p.numel() for p in network.parameters()) / 1e6
            table.add_row(part, f"{millions:.2f}", f"{cost:.3f}" if unit else "", unit)
        Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:] or ["compact", "base", "sync_expert", "lip_regressor"])
