"""`talkinghead converse`: answer a spoken or typed question with a talking video."""

from __future__ import annotations

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from talkinghead.cli.shared.builders import build_conversation, build_encode_options
from talkinghead.cli.shared.typed_conversation import answer_typed_lines
from talkinghead.errors import UsageError
from talkinghead.paths import output_file


def main(cfg: DictConfig) -> None:
    """Answer the question, or each typed question, as configured by `conf/converse.yaml`."""
    needed = ("face", "output") if cfg.interactive else ("face", "audio", "output")
    if missing := [f"{key}=..." for key in needed if cfg[key] is None]:
        raise UsageError(
            f"{' and '.join(missing)} must be given: face=photo.jpg audio=question.wav "
            "output=answer.mp4, or face=photo.jpg output=FOLDER interactive=true"
        )
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
