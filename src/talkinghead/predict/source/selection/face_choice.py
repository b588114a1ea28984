"""Choice of faces by index, by pixel, or by a photo of the person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkinghead.errors import FaceNotFoundError, UsageError
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import (
    FaceSelector,
    FoundFaces,
    SelectFaceFromLeft,
)
from talkinghead.media.reader import read_image
from talkinghead.paths import expand_home
from talkinghead.predict.source.selection.face_similarity import describe_face, most_similar
from talkinghead.types import Box, Face, FloatArray

FACE_WORDS = ("largest", "index", "all", "speaking")
"""The words that select faces, in place of a list of faces."""

_EXPECTED = "the index of a face from the left (0, 1, ...), a pixel (320x180), or a photo"
_PIXEL = re.compile(r"(\d{1,6})\s*x\s*(\d{1,6})", re.IGNORECASE)
# Spreadsheets and data frames write whole numbers as 0.0.
_INDEX = re.compile(r"(\d{1,9})(?:\.0*)?")
# Maximum distance of a pixel outside the box of the face that it selects, such as in the hair or on
# the neck, as a fraction of the box's size.
_REACH = 0.5


@dataclass(frozen=True)
class FaceChoice:
    """One face of an image or of a shot.

    Attributes:
        value: the index from the left, counted from 0; the pixel (x, y); or a photo of the person.
        text: the choice as it was given, for messages.
    """

    value: int | tuple[int, int] | Path
    text: str

    def __str__(self) -> str:
        return self.text


def read_face_choices(values: Any, option: str) -> tuple[FaceChoice, ...]:
    """Return the faces that an option chooses: one, or a list.

    Raises:
        UsageError: A value is neither an index, a pixel nor a file, or two values are equal.
    """
    if values is None:
        return ()
    is_list = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    choices = tuple(_read_choice(value, option) for value in (values if is_list else [values]))
    if is_list and not choices:
        raise UsageError(f"{option}=[] is empty: expected {_EXPECTED} for each face")
    for number, choice in enumerate(choices):
        if any(choice.value == other.value for other in choices[:number]):
            raise UsageError(f"{option} has the face {choice} twice: give each face once")
    return choices


def is_photo(text: str) -> bool:
    """Return whether a choice is a photo of a person, not a number or a pixel."""
    text = text.strip()
    return not _is_number(text) and _PIXEL.fullmatch(text) is None


def face_word(value: Any) -> str | None:
    """Return the word of `FACE_WORDS` that a value is, in any case; None for another value."""
    word = value.strip().lower() if isinstance(value, str) else None
    return word if word in FACE_WORDS else None


def _read_choice(value: Any, option: str) -> FaceChoice:
    if isinstance(value, str | Path):
        text = str(value).strip()
        if index := _INDEX.fullmatch(text):
            return FaceChoice(int(index[1]), index[1])
        if pixel := _PIXEL.fullmatch(text):
            return FaceChoice((int(pixel[1]), int(pixel[2])), text)
        path = Path(expand_home(text))
        if text and path.is_file():
            return FaceChoice(path, text)
        if _is_number(text):
            raise UsageError(f"{option}={text}: expected {_EXPECTED}")
        words = f", or one of the words {', '.join(FACE_WORDS)}" if option == "face_select" else ""
        raise UsageError(f"{option}={text}: there is no such file; expected {_EXPECTED}{words}")
    is_number = isinstance(value, int | float | np.integer) and not isinstance(value, bool)
    if is_number and value >= 0 and float(value).is_integer():
        return FaceChoice(int(value), str(int(value)))
    is_pair = isinstance(value, Sequence) and len(value) == 2
    if is_pair and all(type(number) is int and number >= 0 for number in value):
        return FaceChoice((value[0], value[1]), f"{value[0]}x{value[1]}")
    raise UsageError(f"{option}={value}: expected {_EXPECTED}")


def _is_number(text: str) -> bool:
    """Return whether a text is a number, which is not taken for the name of a missing file."""
    try:
        float(text)
    except ValueError:
        return False
    return True


class FaceChooser:
    """Finder of the faces that the user chose by index, pixel or photo.

    Args:
        choices: the faces.
        detector: detects the faces in photos of persons.
        scale: factor from the pixels of choices to those of the images.

    Attributes:
        choices: the faces.
        selectors: a selector for each of them.

    Raises:
        FaceNotFoundError: A photo of a person shows no face.
        MediaError: A photo cannot be read.
    """

    def __init__(
        self, choices: Sequence[FaceChoice], detector: FaceDetector, scale: float = 1.0
    ) -> None:
        self.choices = tuple(choices)
        people = {
            choice.value: _describe_photo(choice.value, detector)
            for choice in choices
            if isinstance(choice.value, Path)
        }
        self.selectors = [_selector(choice, people, scale) for choice in choices]

    def find(self, found: FoundFaces) -> list[Face | None]:
        """Return the face of each choice in an image, None where there is no such face."""
        return [select(found) for select in self.selectors]

    def find_all(self, found: FoundFaces, name: str, option: str) -> list[Face]:
        """Return the face of each choice in a photo.

        Args:
            found: the faces in the photo.
            name: name of the photo, for messages.
            option: name of the option, for messages.

        Raises:
            UsageError: A face is missing, or two choices are the same face.
        """
        faces: list[Face] = []
        for choice, face in zip(self.choices, self.find(found), strict=True):
            if face is None:
                count = len(found.faces)
                raise UsageError(
                    f"{name}: {option} asks for the face {choice}, which is not among the "
                    f"{count} face{'s' * (count != 1)} of the photo (from the left: "
                    f"{_positions(found.faces)}): choose another face; audio=[...] needs a face "
                    "for each file"
                )
            if any(face is other for other in faces):
                same = self.choices[[other is face for other in faces].index(True)]
                raise UsageError(
                    f"{name}: {option}: {same} and {choice} are the same face: give each face once"
                )
            faces.append(face)
        return faces


def _positions(faces: Iterable[Face]) -> str:
    """Return the indices and the centres of faces."""
    centres = sorted(face.box.centre for face in faces)
    return ", ".join(f"{index} at {x:.0f}x{y:.0f}" for index, (x, y) in enumerate(centres))


def _selector(choice: FaceChoice, people: Mapping[Path, FloatArray], scale: float) -> FaceSelector:
    if isinstance(choice.value, int):
        return SelectFaceFromLeft(choice.value)
    if isinstance(choice.value, tuple):
        return _SelectFaceAt((choice.value[0] * scale, choice.value[1] * scale))
    others = [person for path, person in people.items() if path != choice.value]
    return _SelectPerson(people[choice.value], others)


class _SelectFaceAt:
    """Face selector that returns the face at a pixel."""

    def __init__(self, pixel_xy: tuple[float, float]) -> None:
        self._pixel_xy = pixel_xy

    def __call__(self, found: FoundFaces) -> Face | None:
        near = [(self._distance(face.box), index) for index, face in enumerate(found.faces)]
        distance, index = min(near, default=(np.inf, 0))
        return found.faces[index] if distance <= 0.5 + _REACH else None

    def _distance(self, box: Box) -> float:
        """Return the distance from the centre of a box, in sizes of the box."""
        (x, y), (centre_x, centre_y) = self._pixel_xy, box.centre
        return max(abs(x - centre_x) / box.width, abs(y - centre_y) / box.height)


class _SelectPerson:
    """Face selector that returns the face of a person, if no other person is more similar."""

    def __init__(self, person: FloatArray, others: Sequence[FloatArray]) -> None:
        self._person, self._others = person, others

    def __call__(self, found: FoundFaces) -> Face | None:
        described = [describe_face(found.image, face) for face in found.faces]
        index = most_similar(self._person, described, self._others)
        return None if index is None else found.faces[index]


def _describe_photo(path: Path, detector: FaceDetector) -> FloatArray:
    image = read_image(path)
    faces = detector.detect(image)
    if not faces:
        raise FaceNotFoundError(
            f"{path}: no face was found in this photo of a person: use one in which the face looks "
            "towards the camera"
        )
    return describe_face(image, faces[0])
