"""Choice of faces by index, pixel and photo, in photos and in videos."""

from contextlib import closing
from fractions import Fraction
from itertools import islice, takewhile

import cv2
import numpy as np
import pytest
from helpers.media_files import write_media
from skimage.data import astronaut

from talkinghead.errors import FaceNotFoundError, MediaError, UsageError
from talkinghead.features.faces.alignment import invert
from talkinghead.features.faces.tracker import FoundFaces
from talkinghead.media.writer import write_image
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.frame_sources import PhotoFrames, video_frames
from talkinghead.predict.source.selection.face_choice import FaceChooser, read_face_choices
from talkinghead.predict.source.selection.face_similarity import describe_face, most_similar
from talkinghead.types import AVSpec

SIDE = 240


@pytest.fixture(scope="module")
def people():
    """Two persons: the astronaut, and her mirror image with freckles."""
    first = np.ascontiguousarray(astronaut()[:SIDE, 105 : 105 + SIDE])
    second = first[:, ::-1].copy()
    rng = np.random.default_rng(0)
    for x, y in rng.uniform((70, 60), (170, 115), (60, 2)):
        cv2.circle(second, (int(x), int(y)), 1, (140, 85, 65), -1, cv2.LINE_AA)
    return first, second


@pytest.fixture(scope="module")
def pair(people):
    return np.hstack(people)


def varied(image):
    """Return a darker, softer and shifted image of the same person."""
    image = cv2.GaussianBlur(np.roll(image, 4, axis=1), (0, 0), 0.6)
    return (0.8 * image.astype(np.float32) + 5).astype(np.uint8)


def x_of(frame):
    x, _ = invert(frame.transform) @ np.array([128, 128, 1])
    return x


def selected(image, detector, **options):
    """Return the horizontal positions of the selected faces of a photo, by slot."""
    source = SourceOptions(motion="none", **options)
    frames = PhotoFrames(image, "p.jpg", detector, AVSpec(), source)()
    return [x_of(frame) for frame in islice(frames, 4) if frame.time_s == 0]


def sides(image, detector, **options):
    return [int(x > SIDE) for x in selected(image, detector, **options)]


def test_faces_of_a_photo_are_chosen_by_index_and_pixel(pair, detector):
    assert sides(pair, detector, face_select=[1, 0]) == [1, 0]
    assert sides(pair, detector, face_select=["360x110", "100x130"]) == [1, 0]
    assert sides(pair, detector, face_select=[(360, 110)]) == [1]
    assert sides(pair, detector, face_select="all", exclude_face=0) == [1]
    assert sides(pair, detector, exclude_face="360x110") == [0]
    assert sides(pair, detector, exclude_face=["0"]) == [1]


@pytest.mark.slow
def test_faces_are_chosen_by_photos_of_the_persons(people, pair, detector, tmp_path):
    files = [tmp_path / "first.png", tmp_path / "second.png"]
    for path, person in zip(files, people, strict=True):
        write_image(path, varied(person))
    assert sides(pair, detector, face_select=files) == [0, 1]
    assert sides(pair, detector, face_select=[str(files[1])]) == [1]
    assert sides(np.hstack(people[::-1]), detector, exclude_face=files[0]) == [0]
    similar = np.array(
        [
            [describe_face(a, detector.detect(a)[0]) @ describe_face(b, detector.detect(b)[0])]
            for a in people
            for b in map(varied, people)
        ]
    ).reshape(2, 2)
    assert similar.diagonal().min() > similar[0, 1] + 0.1
    assert similar.diagonal().min() > similar[1, 0] + 0.1


def test_absent_person_is_not_found():
    person, stranger = np.float32([1, 0]), np.float32([0.2, 0.98])
    assert most_similar(person, [stranger, person]) == 1
    assert most_similar(person, [stranger]) is None
    # A face that is more similar to another person is not selected.
    assert most_similar(person, [np.float32([0.6, 0.8])], [np.float32([0.5, 0.86])]) is None


def test_pixels_refer_to_the_photo_before_it_is_scaled_down(pair, detector):
    small = cv2.resize(pair, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    chooser = FaceChooser(read_face_choices("360x110", "face_select"), detector, scale=0.5)
    (face,) = chooser.find(FoundFaces(detector.detect(small), small))
    assert face.box.x0 > SIDE / 2
    chooser = FaceChooser(read_face_choices("10x239", "face_select"), detector)
    assert chooser.find(FoundFaces(detector.detect(pair), pair)) == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"face_select": [0, 2]}, "asks for the face 2, which is not among the 2 faces"),
        ({"face_select": [0, "100x110"]}, "0 and 100x110 are the same face"),
        ({"exclude_face": 5}, "exclude_face asks for the face 5"),
        ({"face_select": "index", "face_index": 1, "exclude_face": 1}, "is also excluded"),
    ],
    ids=str,
)
def test_wrong_choices_in_a_photo_are_refused(pair, detector, options, message):
    with pytest.raises(UsageError, match=message):
        selected(pair, detector, **options)
    with pytest.raises(FaceNotFoundError, match="excludes every face"):
        selected(pair, detector, exclude_face=[0, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"face_select": []}, "is empty"),
        ({"face_select": [0, 0]}, "has the face 0 twice"),
        ({"face_select": [-1]}, "face_select"),
        ({"face_select": ["no.jpg"]}, "face_select=no.jpg: there is no such file"),
        ({"exclude_face": "1x"}, "exclude_face=1x"),
        ({"face_select": [0, 1], "exclude_face": "1"}, "also in face_select"),
        ({"face_index": 1}, "face_index=1 has no effect .*: set face_select=index"),
        ({"face_index": 1, "face_select": [0]}, "set face_select=index"),
    ],
    ids=str,
)
def test_wrong_choices_are_refused_at_once(options, message):
    with pytest.raises(UsageError, match=message):
        SourceOptions(**options)


def test_photo_of_a_person_must_show_a_face(detector, tmp_path):
    write_image(tmp_path / "wall.png", np.full((100, 100, 3), 128, np.uint8))
    (tmp_path / "no.png").write_bytes(b"no image")
    for name, error in (("wall.png", FaceNotFoundError), ("no.png", MediaError)):
        with pytest.raises(error, match=name):
            FaceChooser(read_face_choices(tmp_path / name, "exclude_face"), detector)


def test_several_audio_inputs_need_a_face_each():
    assert SourceOptions().for_voices(1) == SourceOptions()
    assert SourceOptions().for_voices(2).face_select == (0, 1)
    assert SourceOptions(face_select=[3, 1]).for_voices(2).face_select == [3, 1]
    for options in (SourceOptions(face_select=[0, 1, 2]), SourceOptions(face_select="speaking")):
        with pytest.raises(UsageError, match="give a face for each file"):
            options.for_voices(2)


@pytest.fixture(scope="module")
def changing(people, tmp_path_factory):
    """A video in which the two persons change places at a cut after ten frames."""
    first, second = people
    images = [np.hstack([first, second])] * 10 + [np.hstack([second, first])] * 10
    return write_media(tmp_path_factory.mktemp("choice") / "v.mp4", images)


def slots(video, detector, **options):
    """Return the side of each slot's face, for each of the 20 frames."""
    found = {}
    options = SourceOptions(calibrate="none", **options)
    with closing(video_frames(video, Fraction(25), detector, AVSpec(), options)) as frames:
        for frame in takewhile(lambda frame: frame.time_s < Fraction(20, 25), frames):
            if frame.transform is not None:
                found.setdefault(frame.slot, []).append(int(x_of(frame) > SIDE))
    return found


@pytest.mark.slow
def test_persons_of_a_video_are_followed_across_cuts(people, changing, detector, tmp_path):
    write_image(tmp_path / "a.png", people[0])
    write_image(tmp_path / "b.png", people[1])
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    assert slots(changing, detector, face_select=files) == {
        0: [0] * 10 + [1] * 10,
        1: [1] * 10 + [0] * 10,
    }
    assert slots(changing, detector, face_select="all", exclude_face=files[0]) == {
        0: [1] * 10 + [0] * 10
    }
    assert slots(changing, detector, face_select=[1]) == {0: [1] * 20}


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "-1", "1.5", "99999999999"])
def test_invalid_index_is_not_interpreted_as_a_file(value):
    with pytest.raises(UsageError, match=r"exclude_face=[^:]+: expected the index of a face"):
        read_face_choices(value, "exclude_face")
