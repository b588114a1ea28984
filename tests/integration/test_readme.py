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
from pathlib import Path

import pytest
from helpers.media_files import write_sample_media

from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.types import AVSpec

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
MAX_WORDS = 1200
COMMANDS = ("prepare", "train", "predict", "converse", "evaluate", "score")

_BLOCK = re.compile(
    r"(?P<comments>(?:<!-- readme: .*? -->\s*\n)*)```bash\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
_COMMENT = re.compile(r"<!-- readme: (.*?) -->")


def _parse(text: str) -> list[tuple[str, list[pytest.MarkDecorator]]]:
    """Return the code of each block, and its marks."""
    blocks = []
    for match in _BLOCK.finditer(text):
        code, marks = match["code"], []
        for comment in _COMMENT.findall(match["comments"]):
            old, arrow, new = comment.partition(" => ")
            if arrow:
                assert old in code, f"{old!r} to replace is not in the block:\n{code}"
                code = code.replace(old, new)
            elif comment == "slow":
                marks.append(pytest.mark.slow)
            else:
                word, _, reason = comment.partition(": ")
                assert word == "skip", f"unknown marker {comment!r}"
                assert reason, "say why the block is skipped"
                marks.append(pytest.mark.skip(reason=reason))
        blocks.append((code, marks))
    return blocks


README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    pytest.param(code, marks=marks, id=f"{number}-{code.partition(chr(10))[0][:40]}")
    for number, (code, marks) in enumerate(_parse(README), 1)
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """Make a folder with links to the project, an up-to-date environment, and media."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "src", "conf", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    (folder / ".venv/.installed-offline-dev").touch()
    write_sample_media(folder, speech_s=1.5)
    make_synthetic_corpus(folder / "corpora/mine", AVSpec())
    return folder


@pytest.mark.parametrize("code", BLOCKS)
def test_readme_block_runs(code, checkout):
    path = f"{checkout / '.venv/bin'}:{os.environ['PATH']}"
    clean = {key: os.environ[key] for key in os.environ if not key.startswith(("MAKE", "MFLAGS"))}
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


def test_readme_shows_the_main_commands_and_links_to_existing_files():
    code = "".join(match["code"] for match in _BLOCK.finditer(README))
    for command in ("make infer", "make test", *map("talkinghead {}".format, COMMANDS)):
        assert command in code, f"the README has no bash block with {command}"
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", README)
    assert not [link for link in links if not (ROOT / link).exists()]
    assert len(README.split()) <= MAX_WORDS


def test_readme_block_markers_are_parsed():
    text = (
        "<!-- readme: slow -->\n<!-- readme: b => c -->\n```bash\na b\n```\n\n"
        "<!-- readme: skip: big -->\n```bash\nx\n```\n"
    )
    skip = pytest.mark.skip(reason="big")
    assert _parse(text) == [("a c\n", [pytest.mark.slow]), ("x\n", [skip])]
    with pytest.raises(AssertionError, match="is not in the block"):
        _parse("<!-- readme: z => c -->\n```bash\na b\n```\n")
