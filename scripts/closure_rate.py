"""Measure how often the lips close on p, b and m in speech that is synthesised from a text.

python scripts/closure_rate.py                       lip motion of 100 sentences
python scripts/closure_rate.py --rendered 10         also landmarks of the frames of 10 sentences
python scripts/closure_rate.py --tts espeak          another voice that gives its phonemes
python scripts/closure_rate.py --sentences 3 --heads also frames with head motion and emotions

The voice, by default the packaged one, speaks each sentence once. The closure rate
(docs/metrics.md) is measured with and without the constraints of the phonemes. The time of a sound
is the middle of its phoneme. With `--heads`, the lips in frames with `motion=speech` and with each
emotion are compared with those of the still face: `r` is the correlation of their openings, `r lip
motion` that with the lip motion that is rendered, and the closed fraction is that of the frames
with an opening below 15 % of its range.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from talkinghead.evaluation.metrics import closure_rate, opening_correlation, rounding_rate
from talkinghead.features.faces.alignment import LIP_POINTS
from talkinghead.media.timing import num_frames_for
from talkinghead.paths import demo_face
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.phonemes import Phoneme, TimedSpeech
from talkinghead.predict.avatar import Avatar
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.head.expression.emotions import EMOTIONS
from talkinghead.speech.tts.espeak import Espeak
from talkinghead.speech.tts.piper import Piper
from talkinghead.speech.voice import Voice
from talkinghead.types import FloatArray

_SUBJECTS = (
    "My brother",
    "The baker by the bridge",
    "Somebody from the museum",
    "A famous painter",
    "Every member of the family",
    "The number four bus",
    "Our neighbour's puppy",
    "Professor Brown",
    "Nobody I know",
    "The weather in Paris",
)
_PREDICATES = (
    "may be back before breakfast.",
    "put a map on the table and left.",
    "bumped into a big blue lamp post.",
    "never opens the window in February.",
    "was warm, but people stayed at home.",
    "gave him a book about mountains.",
    "kept the promise for five months.",
    "jumped up as the bell rang.",
    "will probably come at half past seven.",
    "moved a little, stopped, and began again.",
)
SENTENCES = [f"{subject} {predicate}" for predicate in _PREDICATES for subject in _SUBJECTS]


@dataclass(frozen=True)
class Spoken:
    """The speech of one sentence: samples at 16 kHz, and the phonemes."""

    samples: FloatArray
    phonemes: Sequence[Phoneme]

    def times_s(self, letters: str) -> list[float]:
        """Return the middles of the phonemes that begin with one of the letters."""
        return [(p.start_s + p.end_s) / 2 for p in self.phonemes if p.symbol[0] in letters]


def speak(voice: Voice, text: str) -> Spoken:
    """Return the speech of a sentence."""
    stream = SpeechStream(list(voice.speak_timed(text)), voice.sample_rate)
    samples = np.concatenate(list(stream.read(voice.sample_rate)))
    return Spoken(samples, stream.phonemes.between(0, len(samples) / voice.sample_rate))


def moved_lips(avatar: Avatar, spoken: Spoken) -> tuple[FloatArray, FloatArray]:
    """Return the opening and the width [T] of the lip motion that is rendered."""
    mouths = avatar.predictor.mouth_generator()
    mouths.tokens.push(spoken.samples)
    mouths.tokens.finish()
    mouths.phonemes.add(spoken.phonemes)
    reference = avatar.face_frames[0][0].reference
    assert reference is not None
    spec = avatar.predictor.spec
    num_frames = num_frames_for(Fraction(len(spoken.samples), spec.sample_rate), spec.fps)
    times_s = [Fraction(2 * frame + 1, 2) / spec.fps for frame in range(num_frames)]
    lips, _ = mouths.lip_motion(times_s, reference)
    return _opening(lips), lips[:, 6, 0] - lips[:, 0, 0]


def rendered_lips(avatar: Avatar, spoken: Spoken) -> tuple[FloatArray, FloatArray]:
    """Return the opening and the width [T] of the lips that are detected in the frames."""
    predictor = avatar.predictor
    assert isinstance(predictor, LipSyncPredictor)
    detector = predictor.detector
    speech = TimedSpeech(spoken.samples, tuple(spoken.phonemes))
    points = []
    with predictor.predict(avatar, SpeechStream([speech], predictor.spec.sample_rate)) as frames:
        for image, _ in frames:
            face = detector.detect(image)[0]
            points.append(face.points[list(LIP_POINTS[face.topology])])
    lips = np.stack(points)
    return _opening(lips), lips[:, 6, 0] - lips[:, 0, 0]


def _opening(lips: FloatArray) -> FloatArray:
    return np.asarray((lips[:, [17, 18, 19], 1] - lips[:, [15, 14, 13], 1]).mean(1), np.float32)


def main() -> None:
    """Print the rates as a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--rendered", type=int, default=0)
    parser.add_argument("--heads", action="store_true")
    parser.add_argument("--face", type=Path, default=demo_face())
    parser.add_argument("--tts", choices=("piper", "espeak"), default="piper")
    parser.add_argument("--lip-prior", choices=("auto", "none"), default="auto")
    options = parser.parse_args()
    texts = SENTENCES[:: max(1, len(SENTENCES) // options.sentences)][: options.sentences]
    if options.tts == "espeak":
        spoken = [speak(Voice(Espeak(), sample_rate=16_000), text) for text in texts]
    else:
        with closing(Piper()) as piper:
            spoken = [speak(Voice(piper, sample_rate=16_000), text) for text in texts]
    lip_prior = None if options.lip_prior == "none" else "auto"
    avatars = {
        on: LipSyncPredictor.from_checkpoint(phonemes=on, lip_prior=lip_prior).avatar(
            options.face, SourceOptions(motion="none")
        )
        for on in (False, True)
    }
    print("| frames | closures | rate without | with | rounding without | with | r |")
    print("|---|---|---|---|---|---|---|")
    print(_row("lip motion", moved_lips, avatars, spoken))
    if options.rendered:
        some = spoken[:: max(1, len(spoken) // options.rendered)][: options.rendered]
        print(_row("rendered", rendered_lips, avatars, some))
    if options.heads:
        print("\n| head | closures | closed fraction | r | r lip motion |\n|---|---|---|---|---|")
        for row in _head_rows(avatars[True], options.face, spoken):
            print(row, flush=True)


def _head_rows(still: Avatar, face: Path, spoken: list[Spoken]) -> Iterator[str]:
    """Yield the table's rows of the still face, of moving heads, and of emotions."""
    asked = [moved_lips(still, sentence)[0] for sentence in spoken]
    expected = [rendered_lips(still, sentence)[0] for sentence in spoken]
    predictor, fps = still.predictor, still.predictor.spec.fps
    assert isinstance(predictor, LipSyncPredictor)
    heads = {"still": SourceOptions(motion="none"), "speech": SourceOptions(motion="speech")}
    heads |= {n: SourceOptions(motion="none", emotion=n) for n in EMOTIONS if n != "neutral"}
    for name, options in heads.items():
        avatar = predictor.avatar(face, options)
        values = []
        for sentence, lips, base in zip(spoken, asked, expected, strict=True):
            found = base if name == "still" else rendered_lips(avatar, sentence)[0]
            low, high = np.percentile(found, [5, 95])
            values.append(
                (
                    closure_rate(found, sentence.times_s("pbm"), fps),
                    float((found < low + 0.15 * (high - low)).mean()),
                    opening_correlation(found, base),
                    opening_correlation(found, lips),
                )
            )
        yield f"| {name} | {' | '.join(f'{value:.3f}' for value in np.mean(values, 0))} |"


def _row(name: str, measure: object, avatars: dict[bool, Avatar], spoken: list[Spoken]) -> str:
    assert callable(measure)
    values = list(_measured(measure, avatars, spoken))
    rates, weights = np.array([value[:5] for value in values]), [value[5] for value in values]
    means = [np.average(np.nan_to_num(column), weights=weights) for column in rates.T]
    cells = " | ".join(f"{mean:.3f}" for mean in means)
    return f"| {name} | {sum(weights)} | {cells} |"


def _measured(
    measure: object, avatars: dict[bool, Avatar], spoken: list[Spoken]
) -> Iterator[tuple[float, ...]]:
    assert callable(measure)
    for sentence in spoken:
        closed, rounded = sentence.times_s("pbm"), sentence.times_s("wuo\u028a")
        (off, off_width), (on, on_width) = (measure(avatars[on], sentence) for on in (False, True))
        fps = avatars[True].predictor.spec.fps
        yield (
            *(closure_rate(opening, closed, fps) for opening in (off, on)),
            *(rounding_rate(width, rounded, fps) for width in (off_width, on_width)),
            opening_correlation(on, off),
            len(closed),
        )


if __name__ == "__main__":
    main()
