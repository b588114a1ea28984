"""Fine-tune the packaged model on your own clips: prepare the corpus, train, evaluate.

    python examples/fine_tune.py videos/ work/
    python examples/fine_tune.py videos/ work/ model.max_iterations=100

`videos/` contains one folder of clips for each speaker. Further arguments are those of
`talkinghead train`. The result is `work/run/checkpoints/last.ckpt`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from talkinghead.cli.main import main as talkinghead


def run(*arguments: str) -> None:
    """Run a `talkinghead` command; if the command fails, exit with its status."""
    print("talkinghead", *arguments)
    status = talkinghead(arguments)
    if status:
        sys.exit(status)


def main() -> None:
    """Read the command line and run the three commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()

    corpus, folder = arguments.work / "corpus", arguments.work / "run"
    run("prepare", f"input={arguments.videos}", f"output={corpus}", "val_fraction=0.2")
    run(
        "train",
        "experiment=finetune",
        f"data.corpus_dir={corpus}",
        f"hydra.run.dir={folder}",
        *arguments.overrides,
    )
    run(
        "evaluate",
        f"checkpoint={folder / 'checkpoints/last.ckpt'}",
        f"corpus={corpus}",
        f"output={arguments.work / 'scores'}",
    )


if __name__ == "__main__":
    main()
