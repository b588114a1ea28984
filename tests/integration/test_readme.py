"""Tests that run the ```bash blocks of the README in a folder like a fresh checkout.

The folder has `photo.jpg`, `video.mp4`, `speech.wav`, `videos/` (raw clips) and `corpora/mine`
(a prepared corpus). HTML comments, each on its own line, may precede a block:

    <!-- readme: skip: why -->          not run (installation, download, long training)
    <!-- readme: slow -->               run by `make test-all` only
    <!-- readme: OLD => NEW -->         run with NEW in place of OLD
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.media_files import write_sample_media

from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.types import AVSpec

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300

_BLOCK = re.compile(
    r"(?P<comments>(?:<!-- readme: .*? -->\s*\n)*)```bash\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
_COMMENT = re.compile(r"<!-- readme: (.*?) -->")


@dataclass(frozen=True)
class Block:
    """One ```bash block, and the reason to skip it if there is one."""

    code: str
    skip: str = ""
    slow: bool = False


def _parse(text: str) -> list[Block]:
    blocks = []
    for match in _BLOCK.finditer(text):
        code, skip, slow = match["code"], "", False
        for comment in _COMMENT.findall(match["comments"]):
            old, arrow, new = comment.partition(" => ")
            if arrow:
                assert old in code, f"{old!r} to replace is not in the block:\n{code}"
                code = code.replace(old, new)
            elif comment == "slow":
                slow = True
            else:
                word, _, skip = comment.partition(": ")
                assert word == "skip", f"unknown marker {comment!r}"
                assert skip, "say why the block is skipped"
        blocks.append(Block(code, skip, slow))
    return blocks


def _params() -> list[object]:
    def marks(block: Block) -> list[pytest.MarkDecorator]:
        skip = [pytest.mark.skip(reason=block.skip)] if block.skip else []
        return [*skip, *([pytest.mark.slow] if block.slow else [])]

    blocks = _parse((ROOT / "README.md").read_text(encoding="utf-8"))
    return [
        pytest.param(
            block.code, marks=marks(block), id=f"{number}-{block.code.split(chr(10))[0][:40]}"
        )
        for number, block in enumerate(blocks, 1)
    ]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with links to the project, an up-to-date environment, and media."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "src", "conf", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    (folder / ".venv/.installed").touch()
    write_sample_media(folder, speech_s=1.5)
    make_synthetic_corpus(folder / "corpora/mine", AVSpec())
    return folder


@pytest.mark.parametrize("code", _params())
def test_block_runs(code: str, checkout: Path) -> None:
    path = f"{checkout / '.venv/bin'}:{os.environ['PATH']}"
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=checkout,
        env={**clean, "PATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_readme_shows_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = "".join(match["code"] for match in _BLOCK.finditer(text))
    for command in (
        "make infer",
        "make test",
        "talkinghead prepare",
        "talkinghead train",
        "talkinghead predict",
    ):
        assert command in code, f"the README has no bash block with {command}"


def test_linked_files_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text)
    assert not [link for link in links if not (ROOT / link).exists()]


def test_block_markers_are_parsed() -> None:
    text = (
        "<!-- readme: slow -->\n<!-- readme: b => c -->\n```bash\na b\n```\n\n"
        "<!-- readme: skip: big -->\n```bash\nx\n```\n"
    )
    assert _parse(text) == [Block("a c\n", slow=True), Block("x\n", skip="big")]
    with pytest.raises(AssertionError, match="is not in the block"):
        _parse("<!-- readme: z => c -->\n```bash\na b\n```\n")
