"""Build objects from the configurations of `predict` and `converse`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.live.session.dialogue_options import DialogueOptions
from talkinghead.live.session.session_process import SessionFactory
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.speaker_style import read_style
from talkinghead.predict.batch.workers import JobRunner
from talkinghead.predict.options import EncodeOptions, PredictOptions, SourceOptions
from talkinghead.predict.output.provenance import Provenance
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.runtime.export.background_export import live_backend
from talkinghead.speech.conversation import Conversation
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.speech.sentence_speech import speak_text


def build_predictor(cfg: DictConfig) -> LipSyncPredictor:
    """Return a new predictor; each process of a batch builds one."""
    values = fields_of(PredictOptions, cfg)
    for name in ("detector", "renderer", "lip_prior"):
        values[name] = instantiate(cfg[name]) or None
    values["style"] = read_style(cfg.style)
    return LipSyncPredictor.from_checkpoint(cfg.checkpoint, **values)


def build_live_predictor(cfg: DictConfig) -> LipSyncPredictor:
    """Return a new predictor for live sessions; `backend=auto` selects an existing export."""
    backend = live_backend(cfg.checkpoint, cfg.backend, cfg.device, cfg.precision)
    return build_predictor(OmegaConf.create({**cfg, "backend": backend}))


def build_source_options(cfg: DictConfig) -> SourceOptions:
    """Return the options of the source of the face."""
    return SourceOptions(**fields_of(SourceOptions, cfg))


def build_encode_options(cfg: DictConfig) -> EncodeOptions:
    """Return the options of the video encoder."""
    return EncodeOptions(**fields_of(EncodeOptions, cfg))


def build_render_options(cfg: DictConfig) -> dict[str, Any]:
    """Return the keyword arguments of `LipSyncPredictor.render` that the jobs of a list share."""
    return {
        "options": build_source_options(cfg),
        "encode": build_encode_options(cfg),
        "provenance": instantiate(cfg.provenance),
    }


def build_speaker(cfg: DictConfig) -> Callable[[str], SpeechStream]:
    """Return a function that speaks a text with a new voice; each process of a batch builds one."""
    return partial(speak_text, voice=instantiate(cfg.voice), language=cfg.language)


def build_conversation(cfg: DictConfig) -> Conversation:
    """Return a new conversation."""
    return Conversation(
        build_predictor(cfg).avatar(cfg.face, build_source_options(cfg)),
        instantiate(cfg.llm),
        instantiate(cfg.voice),
        None if cfg.interactive else instantiate(cfg.stt),
        system_prompt=cfg.system_prompt,
        language=cfg.language,
        max_reply_chars=cfg.max_reply_chars,
        max_history=cfg.max_history,
        emotion_tags=cfg.emotion_tags,
        max_question_s=cfg.max_question_s,
        no_speech_reply=cfg.no_speech_reply,
    )


def build_session_factory(cfg: DictConfig) -> SessionFactory:
    """Return the factory of live sessions; each session process builds its own parts."""
    # Create separate configurations: pickling a part of one also pickles the whole.
    voices = {
        name: partial(instantiate, OmegaConf.create({**cfg.voice, "tts": tts}))
        for name, tts in _plain(cfg.voices).items()
    }
    return SessionFactory(
        partial(build_live_predictor, cfg),
        voices,
        {name: partial(instantiate, llm) for name, llm in _plain(cfg.llms).items()},
        partial(instantiate, _plain(cfg.stt)) if cfg.stt else None,
        DialogueOptions(**fields_of(DialogueOptions, cfg)),
        cfg.label,
        tuple(_plain(cfg.ice_servers)),
        cfg.num_threads,
        cfg.motion,
    )


def build_job_runner(cfg: DictConfig, factory: SessionFactory) -> JobRunner:
    """Return the job runner for the live server's videos; texts are spoken by the default voice."""
    make_voice = next(iter(factory.voices.values()))
    # The face may be a client's, of which nothing is kept.
    options = SourceOptions(motion=cfg.motion, keep_calibration=False)
    return JobRunner(
        factory.predictor,
        {"options": options, "provenance": Provenance(label=cfg.label)},
        make_speaker=partial(_make_speaker, make_voice, cfg.language),
    )


def _make_speaker(
    make_voice: Callable[[], TextToSpeech], language: str | None
) -> Callable[[str], SpeechStream]:
    return partial(speak_text, voice=make_voice(), language=language)


def _plain(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)


def fields_of(options: type[Any], cfg: DictConfig) -> dict[str, Any]:
    """Return the fields of an option dataclass in a configuration."""
    return {field.name: cfg[field.name] for field in fields(options)}
