"""Run the steps of a Dockerfile without a container engine, in separate folders.

    python scripts/check_image_steps.py deploy/Dockerfile
    python scripts/check_image_steps.py deploy/Dockerfile --replace " -c constraints.txt=>"

The files that the first stage copies are copied to a temporary folder, its RUN commands run with
another temporary folder in place of /opt/talkinghead, and the command of the image is started until
its health check passes. This checks commands, paths and dependencies, but not the isolation. Prints
the size of the installed files and the time of each step.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PREFIX = "/opt/talkinghead"
START_TIMEOUT_S = 180


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument(
        "--base", default=sys.executable, help="Python in place of the base image's"
    )
    parser.add_argument("--replace", action="append", default=[], metavar="OLD=>NEW")
    parser.add_argument("--no-start", action="store_true", help="do not start the command")
    arguments = parser.parse_args()
    steps = read_steps(arguments.dockerfile.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        folder = Path(name)
        prefix = folder / "opt"
        replaced = dict(item.split("=>", 1) for item in arguments.replace)
        run_build(steps, folder, prefix, arguments.base, replaced)
        size = sum(file.lstat().st_size for file in prefix.rglob("*") if not file.is_dir())
        print(f"installed files: {size / 1e9:.2f} GB")
        if not arguments.no_start:
            start(steps, prefix, folder)


def read_steps(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, without line breaks."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    steps = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest.strip()) for name, rest in steps]


def run_build(
    steps: list[tuple[str, str]],
    folder: Path,
    prefix: Path,
    python: str,
    replaced: Mapping[str, str],
) -> None:
    """Run COPY and RUN of the first stage."""
    work = folder / "source"
    work.mkdir()
    # `python` of the base image.
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(shutil.which(python) or python)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    for name, rest in steps[1:]:
        if name == "FROM":
            return
        if name == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                copy(ROOT / source, work / target)
        if name == "RUN":
            command = rest.replace(PREFIX, str(prefix))
            for old, new in replaced.items():
                command = command.replace(old, new)
            started_s = time.monotonic()
            environment = {**os.environ, "PATH": path}
            subprocess.run(["sh", "-ec", command], cwd=work, env=environment, check=True)
            print(f"RUN {time.monotonic() - started_s:.0f} s: {command[:100]}...")


def copy(source: Path, target: Path) -> None:
    """Copy a file into a folder, or a folder to a folder."""
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
    else:
        shutil.copy2(source, target)


def start(steps: list[tuple[str, str]], prefix: Path, folder: Path) -> None:
    """Start the command of the image, and wait for its health check."""
    instructions = dict(steps)  # The last of each.
    command = json.loads(instructions["ENTRYPOINT"]) + json.loads(instructions["CMD"])
    # Listen on this machine only; the image relies on the network of its container.
    command = [word.replace("0.0.0.0", "127.0.0.1") for word in command]  # noqa: S104
    check = json.loads(re.search(r"CMD (\[.*\])", instructions["HEALTHCHECK"])[1])
    home = folder / "tmp"
    home.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{prefix / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
    }
    started_s = time.monotonic()
    with subprocess.Popen(command, cwd=home, env=environment) as server:
        try:
            while subprocess.run(
                check, env=environment, capture_output=True, check=False
            ).returncode:
                if server.poll() is not None or time.monotonic() - started_s > START_TIMEOUT_S:
                    sys.exit(f"the health check did not pass, exit status {server.poll()}")
                time.sleep(1)
            print(f"healthy after {time.monotonic() - started_s:.0f} s")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
