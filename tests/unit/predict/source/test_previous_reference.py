"""A head turns, and its mouth's texture goes over from one reference to another."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
from helpers.small_predictor import Detector, make_predictor, speech, write_video

from talkinghead.predict.compositing.compositor import Compositor
from talkinghead.predict.compositing.renderers import FeatherRenderer
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.mouth_generator import GeneratedFrame
from talkinghead.predict.source import face_tracks
from talkinghead.predict.source.source_frame import PreviousReference, Reference, SourceFrame
from talkinghead.types import AVSpec

SPEC = AVSpec()
NUM_FRAMES = 50
FOREHEAD = 10
TRANSFORM = np.float32([[1, 0, 0], [0, 1, 0]])


def test_an_avatar_that_turns_gives_what_its_video_gives(tmp_path, monkeypatch):
    """The lighter the picture, the further the head is turned."""

    class Turning(Detector):
        def detect(self, image):
            faces = super().detect(image)
            for face in faces:
                face.points[FOREHEAD] = image.mean()
            return faces

    def turn(points, _):
        return np.float32([0 if points[FOREHEAD, 0] < 130 else 20, 0, 0])

    monkeypatch.setattr(face_tracks, "head_pose", turn)
    predictor = make_predictor(renderer=FeatherRenderer(grain=False), detector=Turning())
    path = write_video(tmp_path / "turn.mp4", [Fraction(i, 25) for i in range(NUM_FRAMES)])
    avatar = predictor.avatar(path)
    assert sum(picture[0].previous_reference is not None for picture in avatar.pictures) == 3
    images = [
        np.stack([image for image, _ in predictor.predict(face, speech(NUM_FRAMES / 25))])
        for face in (avatar, path)
    ]
    assert len(images[0]) == NUM_FRAMES
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1


def test_the_outgoing_reference_is_seen_with_its_share():
    rng = np.random.default_rng(0)
    picture = np.full((256, 256, 3), 120, np.uint8)

    def reference():
        texture = rng.integers(90, 150, picture.shape, np.uint8)
        return Reference(texture, TRANSFORM, np.zeros((20, 2), np.float32))

    def fields():
        size = SPEC.mouth_size
        return MouthFields(
            np.zeros((size // 2, size // 2, 2), np.float32),
            rng.random((size, size, 3), np.float32),
            np.zeros((size, size), np.float32),
        )

    old = SourceFrame(picture, Fraction(0), Fraction(1, 25), TRANSFORM, reference())
    new = replace(
        old, reference=reference(), previous_reference=PreviousReference(old.reference, 0.25)
    )
    frame = GeneratedFrame.to_be(new)
    frame.fields, frame.previous_reference.fields = fields(), fields()

    def alone(generated):
        compositor = Compositor(FeatherRenderer(grain=False), SPEC)
        return compositor.composite(generated)[0].astype(float)

    before = alone(GeneratedFrame(old, frame.previous_reference.fields))
    after = alone(GeneratedFrame(replace(new, previous_reference=None), frame.fields))
    assert np.abs(before - after).max() > 20
    assert np.abs(alone(frame) - 0.25 * before - 0.75 * after).max() <= 1
