"""Keys whose values are paths or free text. Made by scripts/generate_config.py."""

PATH_KEYS = frozenset(
    {
        "checkpoint",
        "data.cache_dir",
        "data.corpus_dir",
        "data.pseudo_label_dir",
        "hydra.run.dir",
        "hydra.sweep.dir",
        "input",
        "lip_prior.map_path",
        "lip_prior.whisper.model",
        "llm.model",
        "loss.perceptual.weights",
        "output",
        "run_dir",
        "stt.model",
        "tts.config_path",
        "tts.model",
        "tts.speaker_wav",
        "tts.voice",
    }
)
"""Their types admit a path."""
NAMED_PATHS_KEYS = frozenset(
    {
        "tts.voice",
    }
)
"""Paths, or named ones in braces: `{a: PATH, b: PATH}`."""
TEXT_KEYS = frozenset(
    {
        "callbacks.last.dirpath",
        "callbacks.opening.detector",
        "callbacks.preview.output_dir",
        "callbacks.pruning.metric",
        "callbacks.pruning.run_dir",
        "ckpt_path",
        "detector.name",
        "emotions",
        "format",
        "license",
        "lip_prior.whisper.compute_type",
        "lip_prior.whisper.device",
        "lip_prior.whisper.language",
        "llm.api_key_env",
        "llm.base_url",
        "llm.template",
        "logger.csv.save_dir",
        "logger.wandb.group",
        "logger.wandb.name",
        "logger.wandb.save_dir",
        "loss.identity.backbone",
        "loss.identity.weights",
        "loss.landmark.checkpoint",
        "model.generator.face_encoder",
        "model.generator.face_encoder_weights",
        "model.init_from",
        "model.license",
        "model.sync_expert",
        "model.trained_on",
        "provenance.certificate_path",
        "provenance.key_path",
        "provenance.label",
        "provenance.timestamp_url",
        "quantize",
        "split_by",
        "stt.api_key_env",
        "stt.base_url",
        "stt.compute_type",
        "stt.device",
        "stt.language",
        "stt.prompt",
        "sync.checkpoint",
        "trained_on",
        "tts.api_key_env",
        "tts.base_url",
        "tts.device",
        "tts.install",
        "tts.instructions",
        "tts.language",
        "tts.speaker",
        "tts.voice_pattern",
    }
)
"""Their types are text, and not one of a fixed set of words."""
