"""Generation of mouths in batches."""

from fractions import Fraction

import numpy as np
from helpers.small_predictor import make_predictor

from talkinghead.predict import mouth_generator
from talkinghead.predict.source.source_frame import PreviousReference, Reference, SourceFrame

SPEECH = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
TRANSFORM = np.eye(2, 3, dtype=np.float32)


def test_frames_with_two_references_are_warped_once(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 256, 256, 3), np.uint8)
    lips = rng.uniform(100, 150, (20, 2)).astype(np.float32)
    first, second = (Reference(image, TRANSFORM, lips) for image in images[:2])

    def frame(image, index, previous=None):
        before = None if previous is None else PreviousReference(previous, 0.5)
        place = TRANSFORM.copy(), first
        return SourceFrame(
            image, Fraction(index, 25), Fraction(1, 25), *place, previous_reference=before
        )

    warp_face, warped = mouth_generator.warp_face, []

    def counting(image, *args):
        warped.append(image)
        return warp_face(image, *args)

    monkeypatch.setattr(mouth_generator, "warp_face", counting)
    frames = [frame(images[1], 0, second), frame(images[2], 1)]
    results, counts = [], []
    for is_plain in (False, True):
        mouths = make_predictor().mouth_generator()
        mouths.tokens.push(SPEECH)
        mouths.tokens.finish()
        if is_plain:
            monkeypatch.setattr(mouths, "_unmasked", mouths._faces)
        results.append(list(mouths.generate(frames)))
        counts.append(len(warped))
    # Two references and two frames; and the frame with two references again.
    assert counts == [4, 4 + 5]
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one.fields.rgb, other.fields.rgb)
    before = [generated[0].previous_reference.fields.flow for generated in results]
    assert np.array_equal(*before)
