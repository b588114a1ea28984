"""`talkinghead converse`: answer a spoken or typed question with a talking video."""

from __future__ import annotations

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from talkinghead.cli.shared.builders import build_conversation, build_encode_options
from talkinghead.cli.shared.typed_conversation import answer_typed_lines
from talkinghead.paths import output_file


def main(cfg: DictConfig) -> None:
    """Answer the question, or each typed question, as configured by `conf/converse.yaml`."""
    if not cfg.interactive:
        output_file(cfg.output, "answer.mp4")
    conversation = build_conversation(cfg)
    options = {
        "encode": build_encode_options(cfg),
        "provenance": instantiate(cfg.provenance),
    }
    if cfg.interactive:
        answer_typed_lines(conversation, Path(cfg.output), options)
    elif error := conversation.answer(cfg.audio, cfg.output, **options).error:
        raise error
