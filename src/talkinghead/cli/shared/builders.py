"""Build the objects that the configurations of `predict` and `converse` describe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial

from hydra.utils import instantiate
from omegaconf import DictConfig

from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.source_frame import SourceOptions
from talkinghead.speech.conversation import Conversation
from talkinghead.speech.sentence_speech import speak_text


def build_predictor(cfg: DictConfig) -> LipSyncPredictor:
    """Return the predictor. Each process of a batch builds its own."""
    return LipSyncPredictor.from_checkpoint(
        cfg.checkpoint,
        cfg.device,
        cfg.precision,
        backend=cfg.backend,
        detector=instantiate(cfg.detector),
        renderer=instantiate(cfg.renderer),
        stabilise=cfg.stabilise,
        occlusion_guard=cfg.occlusion_guard,
        chunk_frames=cfg.chunk_frames,
        emotion=cfg.emotion,
        articulation=cfg.articulation,
        lip_prior=instantiate(cfg.lip_prior) or None,
    )


def build_source_options(cfg: DictConfig) -> SourceOptions:
    """Return the options of the face's source."""
    return SourceOptions(**{field.name: cfg[field.name] for field in fields(SourceOptions)})


def build_speaker(cfg: DictConfig) -> Callable[[str], SpeechStream]:
    """Return the function that speaks a text. Each process of a batch builds its own voice."""
    return partial(speak_text, voice=instantiate(cfg.voice), language=cfg.language)


def build_conversation(cfg: DictConfig) -> Conversation:
    """Return the conversation."""
    avatar = build_predictor(cfg).avatar(cfg.face, build_source_options(cfg))
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
