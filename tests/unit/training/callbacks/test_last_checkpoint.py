"""Tests of the checkpoint that interrupted runs write."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import fit, make_data, make_module
from lightning.pytorch.callbacks import Callback

from talkinghead.training.callbacks.last_checkpoint import LastCheckpoint

GAN = {"loss": {"weights": {"l1": 1.0, "adversarial": 0.01}}, "max_iterations": 4}


def run(
    corpus: Path,
    folder: Path,
    act: Callable[[Any, Any], None] = lambda *_: None,
    ckpt_path: Path | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> dict[str, Any]:
    """Train a small GAN, possibly interrupted, and return the content of its last checkpoint."""
    module = make_module(**GAN, **options)
    data = make_data(corpus, module)
    act(module, data)
    resume = None if ckpt_path is None else str(ckpt_path)
    with contextlib.suppress(KeyboardInterrupt):
        fit(module, data, LastCheckpoint(folder), *callbacks, ckpt_path=resume)
    content: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return content


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("finished")
    run(corpus, folder)
    return folder / "last.ckpt"


def in_generator_step(iteration: int, act: Callable[[], None]) -> Callable[[Any, Any], None]:
    """Return a function that makes a module call `act` before a step of the generator."""

    def prepare(module: Any, _: Any) -> None:
        step = module._generator_step

        def generator_step(*args: Any) -> None:
            if module.iteration == iteration:
                act()
            step(*args)

        module._generator_step = generator_step

    return prepare


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_run_interrupted_in_a_step_resumes_exactly(
    corpus: Path, finished: Path, tmp_path: Path, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = signal.getsignal(number)
    interrupt = in_generator_step(2, lambda: signal.raise_signal(number))
    path = tmp_path / "run" / "last.ckpt"
    stopped = run(corpus, path.parent, interrupt)
    assert stopped["iteration"] == stopped["LipSyncDataModule"]["iteration"] == 3
    assert f"interrupted after iteration 3 of 4: {path} is saved" in caplog.text
    assert signal.getsignal(number) == before
    resumed = run(corpus, path.parent, ckpt_path=path)
    whole = torch.load(finished, weights_only=True)
    for name, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], value), name


def test_interrupted_run_completes_the_accumulation_of_gradients(
    corpus: Path, tmp_path: Path
) -> None:
    interrupt = in_generator_step(0, lambda: signal.raise_signal(signal.SIGTERM))
    assert run(corpus, tmp_path, interrupt, accumulate=2)["iteration"] == 2


def test_immediate_interruption_in_a_step_keeps_the_previous_file(
    corpus: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = shutil.copy(finished, tmp_path / "last.ckpt")

    def interrupt_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    assert run(corpus, tmp_path, in_generator_step(2, interrupt_twice))["iteration"] == 4
    assert f"interrupted: {path} of the earlier run is unchanged" in caplog.text


def test_interruption_before_the_restoration_keeps_the_file(
    corpus: Path, finished: Path, tmp_path: Path
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    shutil.copy(finished, tmp_path / "last.ckpt")
    resumed = run(
        *(corpus, tmp_path, lambda _, data: setattr(data, "setup", interrupt)),
        ckpt_path=tmp_path / "last.ckpt",
    )
    assert resumed["iteration"] == 4
    assert all(optimizer["state"] for optimizer in resumed["optimizer_states"])


def test_interruption_in_validation_saves_at_once(corpus: Path, tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_validation_batch_start(self, *_: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    assert run(corpus, tmp_path, callbacks=[Interrupt()])["iteration"] == 2
