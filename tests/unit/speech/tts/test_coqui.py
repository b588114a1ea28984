"""The Coqui adapter with a small random VITS model, and checks of Coqui's catalogue."""

import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Event, Lock

import numpy as np
import pytest
import torch

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.speech.protocols import TextToSpeech, gives_phonemes
from talkinghead.speech.tts.coqui import Coqui

# TTS takes seconds to import, also in test workers that run none of these tests.
pytestmark = pytest.mark.skipif(
    find_spec("TTS") is None, reason="needs coqui-tts: EXTRAS=speech,dev"
)


def _save_vits(folder, speakers=(), phonemes=None):
    from TTS.config.shared_configs import BaseAudioConfig
    from TTS.tts.configs.shared_configs import CharactersConfig
    from TTS.tts.configs.vits_config import VitsConfig
    from TTS.tts.models.vits import Vits, VitsArgs

    torch.manual_seed(0)
    small = VitsArgs(
        hidden_channels=16,
        hidden_channels_ffn_text_encoder=16,
        num_heads_text_encoder=1,
        num_layers_text_encoder=1,
        num_layers_posterior_encoder=1,
        num_layers_flow=1,
        upsample_initial_channel_decoder=16,
        upsample_rates_decoder=[8, 8, 4],
        upsample_kernel_sizes_decoder=[16, 16, 8],
        resblock_type_decoder="2",
        resblock_kernel_sizes_decoder=[3],
        resblock_dilation_sizes_decoder=[[1, 3]],
        use_speaker_embedding=bool(speakers),
    )
    empty = dict.fromkeys(("eos", "bos", "blank", "phonemes"), "")
    letters = CharactersConfig(
        characters_class="TTS.tts.models.vits.VitsCharacters",
        pad="_",
        characters="abcdefghijklmnopqrstuvwxyz",
        punctuations="!'(),-.:;? ",
        **{**empty, "phonemes": phonemes or ""},
    )
    config = VitsConfig(
        model_args=small,
        audio=BaseAudioConfig(sample_rate=16_000),
        characters=letters,
        text_cleaner="basic_cleaners",
        use_phonemes=phonemes is not None,
        phonemizer="espeak" if phonemes else None,
        phoneme_language="en-us" if phonemes else None,
        add_blank=phonemes is not None,
        speakers=list(speakers),
    )
    folder.mkdir(exist_ok=True)
    config.save_json(folder / "config.json")
    torch.save({"model": Vits(config).state_dict()}, folder / "model.pth")
    return folder / "model.pth"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return _save_vits(tmp_path_factory.mktemp("vits"))


@pytest.fixture(scope="module")
def voice(model):
    return Coqui(model, device="cpu")


def test_one_chunk_is_yielded_per_sentence_until_cancellation(voice):
    assert isinstance(voice, TextToSpeech)
    assert voice.sample_rate == 16_000
    pieces = list(voice.speak("Hello, how are you? I am rather a long sentence. \N{GRINNING FACE}"))
    assert [piece.dtype for piece in pieces] == [np.float32] * 2
    assert all(0 < np.abs(piece).max() <= 1 for piece in pieces)
    # The silence added by coqui-tts is removed.
    assert all(piece[-100:].any() for piece in pieces)
    cancel = Event()
    spoken = voice.speak("One is here. Two is here. Three is here.", cancel)
    next(spoken)
    cancel.set()
    assert not list(spoken)


@pytest.fixture(scope="module")
def phoneme_model(tmp_path_factory):
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs the program espeak-ng")
    folder = tmp_path_factory.mktemp("phonemes")
    return _save_vits(folder, phonemes="æɪʊəɐʌɔɛθðŋʃʒɹɾˈˌː\u0251\u0261\u025c\u02d0")


@pytest.mark.slow
def test_phonemes_have_the_times_of_the_alignment(phoneme_model):
    voice = Coqui(phoneme_model, device="cpu")
    assert gives_phonemes(voice)
    tokenizer = voice._tts.synthesizer.tts_model.tokenizer
    sentence = "Pam may put it up."
    ids = tokenizer.text_to_ids(sentence)
    # The durations in hops of 256 samples, known to the test.
    durations = 1 + torch.arange(len(ids)) % 5
    options = {"extra_aux_input": {"durations": durations[None].float()}}
    [speech] = Coqui(phoneme_model, device="cpu", options=options).speak_timed(sentence)
    assert len(speech.samples) == 256 * int(durations.sum())
    assert "".join(p.symbol[0] for p in speech.phonemes) == "pæmme\u026apʊt\u026aɾʌp"
    ends_s = dict(enumerate((torch.cumsum(durations, 0) * 256 / 16_000).tolist()))
    letters = [
        n for n, i in enumerate(ids) if tokenizer.characters.id_to_char(i) in "pæme\u026aʊɾʌt"
    ]
    assert [p.end_s for p in speech.phonemes] == pytest.approx([ends_s[n] for n in letters])
    previous_s = 0.0
    for number, phoneme in zip(letters, speech.phonemes, strict=True):
        # The blank before a phoneme belongs to it, up to 0.06 s.
        expected_s = max(previous_s, ends_s[number - 1] - 0.06)
        assert phoneme.start_s == pytest.approx(expected_s)
        previous_s = phoneme.end_s


@pytest.mark.slow
def test_predicted_durations_cover_the_speech(phoneme_model):
    [speech] = Coqui(phoneme_model, device="cpu").speak_timed("Pam may put it up.")
    starts_s = [p.start_s for p in speech.phonemes]
    assert starts_s == sorted(starts_s)
    assert starts_s[0] >= 0
    assert speech.phonemes[-1].end_s <= len(speech.samples) / 16_000 + 1e-6
    assert speech.phonemes[-1].end_s > 0.8 * len(speech.samples) / 16_000


def test_models_of_letters_give_no_phonemes(voice):
    assert not gives_phonemes(voice)
    assert not any(speech.phonemes for speech in voice.speak_timed("Pam may put it up."))


@pytest.mark.slow
def test_speakers_are_selected_by_name(tmp_path):
    model = _save_vits(tmp_path, ["ann", "bob"])
    assert next(Coqui(model, speaker="bob", device="cpu").speak("Hello.")).any()
    with pytest.raises(UsageError, match="has one language only"):
        Coqui(model, speaker="bob", language="x", device="cpu")
    for speaker in ("cid", None):
        with pytest.raises(UsageError, match=rf"tts\.speaker={speaker}: the model has ann, bob"):
            Coqui(model, speaker=speaker, device="cpu")


def test_missing_and_broken_files_raise_errors(model, tmp_path):
    with pytest.raises(UsageError, match=r"speaker_wav: there is no file .*nobody\.wav"):
        Coqui(model, speaker_wav=tmp_path / "nobody.wav")
    (tmp_path / "model.pth").write_bytes(b"no weights")
    with pytest.raises(UsageError, match=r"config\.json: there is no such file"):
        Coqui(tmp_path / "model.pth")
    with pytest.raises(UsageError, match="cannot be loaded as a model of Coqui"):
        Coqui(tmp_path / "model.pth", config_path=model.with_name("config.json"))


def test_model_failure_raises_an_error(model):
    voice = Coqui(model, device="cpu", options={"extra_aux_input": 3})
    with pytest.raises(SpeechError, match=r"tts=coqui failed on 'Hello\.'"):
        list(voice.speak("Hello."))


def test_unknown_models_and_terms_of_use_are_refused_without_a_prompt(monkeypatch, tmp_path):
    monkeypatch.setenv("TTS_HOME", str(tmp_path))
    monkeypatch.delenv("COQUI_TOS_AGREED", raising=False)
    for model, message in (
        ("tts_models/en/ljspeech/vist", r"it has .*tts_models/en/ljspeech/vits"),
        ("xtts", "no such model"),
        ("tts_models/multilingual/multi-dataset/xtts_v2", r"CPML.*commercial.*COQUI_TOS_AGREED=1"),
    ):
        with pytest.raises(UsageError, match=message):
            Coqui(model)


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("tts_models/multilingual/multi-dataset/your_tts", "CC BY-NC-ND 4.0"),
        ("tts_models/deu/fairseq/vits", "CC BY-NC 4.0"),
        ("tts_models/en/ljspeech/vits", None),
    ],
)
def test_licence_warning_precedes_download(name, licence, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("TTS_HOME", str(tmp_path))
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(DependencyError, match=r"cannot be downloaded.*tts=piper"),
    ):
        Coqui(name)
    messages = [r.getMessage() for r in caplog.records if r.name.startswith(("talkinghead", "TTS"))]
    assert messages == (
        [f"{name}: its licence, {licence}, forbids commercial use"] if licence else []
    )


def test_concurrent_callers_are_served_one_at_a_time_and_cancelled_at_once(voice, monkeypatch):
    from TTS.utils.synthesizer import PAD_SILENCE_SAMPLES

    running = Lock()

    def synthesise(sentence, **_):
        assert running.acquire(blocking=False), "two callers at a time"
        time.sleep(0.02)
        running.release()
        return [*map(ord, sentence), *[0] * PAD_SILENCE_SAMPLES]

    def speak(text):
        return ["".join(map(chr, chunk.astype(int))) for chunk in voice.speak(text)]

    monkeypatch.setattr(voice._tts, "tts", synthesise)
    sentences = [[f"I am caller {n}.", f"Still caller {n}."] for n in range(8)]
    cancel = Event()
    with ThreadPoolExecutor(9) as threads:
        spoken = [threads.submit(speak, " ".join(pair)) for pair in sentences]
        cancelled = threads.submit(list, voice.speak("I am cancelled.", cancel))
        cancel.set()
        assert cancelled.result(0.1) == []
        assert [speech.result() for speech in spoken] == sentences
