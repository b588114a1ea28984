"""`talkinghead converse`: answer a spoken or typed question with a talking video."""

from __future__ import annotations

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from talkinghead.cli.predict import make_predictor, source_options
from talkinghead.cli.shared.typed_conversation import answer_typed_lines
from talkinghead.errors import UsageError
from talkinghead.speech.conversation import Conversation


def main(cfg: DictConfig) -> None:
    """Answer the question, or each typed one, as `conf/converse.yaml` describes."""
    needed = ("face", "output") if cfg.interactive else ("face", "audio", "output")
    if missing := [f"{key}=..." for key in needed if cfg[key] is None]:
        raise UsageError(
            f"{' and '.join(missing)} must be given: face=photo.jpg audio=question.wav "
            "output=answer.mp4, or face=photo.jpg output=FOLDER interactive=true"
        )
    conversation = make_conversation(cfg)
    options = {
        "crf": cfg.crf,
        "preset": cfg.preset,
        "provenance": instantiate(cfg.provenance),
    }
    if cfg.interactive:
        answer_typed_lines(conversation, Path(cfg.output), options)
    elif error := conversation.answer(cfg.audio, cfg.output, **options).error:
        raise error


def make_conversation(cfg: DictConfig) -> Conversation:
    """Return the conversation that the configuration describes."""
    avatar = make_predictor(cfg).avatar(cfg.face, source_options(cfg))
    return Conversation(
        avatar,
        instantiate(cfg.llm),
        instantiate(cfg.voice),
        None if cfg.interactive else instantiate(cfg.stt),
        system_prompt=cfg.system_prompt,
        language=cfg.language,
        max_reply_chars=cfg.max_reply_chars,
        max_history=cfg.max_history,
        max_question_s=cfg.max_question_s,
        no_speech_reply=cfg.no_speech_reply,
    )
