"""Keys whose values are paths or text; written by `scripts/generate_config.py`."""

PATH_KEYS = frozenset(
    """
    audio avatars background callbacks.last.dirpath callbacks.preview.output_dir
    callbacks.pruning.run_dir checkpoint ckpt_path closures corpus data.cache_dir data.corpus_dir
    data.pseudo_label_dir emotions exclude_face expression face face_select generated hydra.run.dir
    hydra.sweep.dir identity.path inception_path input jobs lip_prior.map_path lip_prior.path
    lip_prior.weights lip_prior.whisper.model llm.model loss.identity.weights
    loss.landmark.checkpoint loss.perceptual.weights model.generator.face_encoder_weights
    model.init_from model.sync_expert output personalisation pose provenance.certificate_path
    provenance.key_path reference run_dir stt.model sync.checkpoint sync.syncnet_path
    tts.config_path tts.model tts.speaker_wav tts.voice video
    """.split()
)
"""Keys whose values may be paths."""

NAMED_PATHS_KEYS = frozenset(
    """
    expression generated model.sync_expert tts.voice
    """.split()
)
"""Keys whose values may be named paths: `{a: PATH, b: PATH}`."""

TEXT_KEYS = frozenset(
    """
    backend calibrate callbacks.opening.detector callbacks.pruning.direction
    callbacks.pruning.metric detector.name device encoder extend format generation hdr host label
    language license lip_offset.undetermined lip_prior.whisper.compute_type lip_prior.whisper.device
    llm.api_key_env llm.base_url llm.template logger.csv.save_dir logger.wandb.group
    logger.wandb.name logger.wandb.save_dir loss.adversarial_kind loss.identity.backbone mode
    model.generator.face_encoder model.license model.loss model.sync_discriminator model.trained_on
    motion no_speech_reply password pix_fmt precision preset provenance.label
    provenance.timestamp_url quantize split_by stt.api_key_env stt.base_url stt.compute_type
    stt.device stt.language stt.prompt system_prompt table_by text token trained_emotion trained_on
    tts.api_key_env tts.base_url tts.device tts.install tts.instructions tts.language tts.speaker
    tts.voice_pattern visible_label
    """.split()
)
"""Keys whose values are any text, not one of a fixed set of words."""
