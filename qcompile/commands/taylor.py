"""Taylor scores for the commands that prune: flags, and what happens before the compilation."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from qcompile.errors import UsageError
from qcompile.options import CompileOptions
from qcompile.progress import ProgressBars
from qcompile.prune_options import IMPORTANCE_FILE, PruneMethod, prunes
from qcompile.train.taylor_options import TaylorMode, TaylorOf, TaylorOptions

Command = TypeVar("Command", bound=Callable[..., Any])
DEFAULTS = TaylorOptions()


def _values(kind: type[enum.Enum]) -> click.Choice[str]:
    return click.Choice([item.value for item in kind])


TAYLOR_FLAGS: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--of",
        type=_values(TaylorOf),
        default=DEFAULTS.of.value,
        show_default=True,
        help="Gradient of the outputs in random directions, of their sum, or of the loss (needs "
        "--data with labels).",
    ),
    click.option(
        "--mode",
        type=_values(TaylorMode),
        default=DEFAULTS.mode.value,
        show_default=True,
        help="Magnitude of the mean over images, mean of magnitudes, or of squares.",
    ),
    click.option(
        "--raw-gradients",
        is_flag=True,
        help="Images count by the size of their gradients, not alike.",
    ),
    click.option(
        "--unit-layers", is_flag=True, help="Divide the scores of each layer by their L2 norm."
    ),
)
"""In the order of `--help`."""


def taylor_flags(command: Command) -> Command:
    """Decorates a command with all of them."""
    for flag in reversed(TAYLOR_FLAGS):
        command = flag(command)
    return command


def taylor_options(flags: dict[str, Any], batch: int, seed: int) -> TaylorOptions:
    """Takes what click parsed out of `flags`."""
    return TaylorOptions(
        TaylorOf(flags.pop("of")),
        TaylorMode(flags.pop("mode")),
        not flags.pop("raw_gradients"),
        flags.pop("unit_layers"),
        batch,
        seed,
    )


@contextmanager
def with_scores(model: Path, options: CompileOptions) -> Iterator[CompileOptions]:
    """Inside the block: the options with a file of Taylor scores, if they ask for them.

    The compiler itself needs no torch; and a sweep or a search computes the scores once.

    Raises:
        UsageError: torch is missing.
    """
    if options.prune_method is not PruneMethod.TAYLOR or not prunes(options):
        yield options
        return
    check_torch("--prune-method taylor")
    from qcompile.importance_file import importance_text
    from qcompile.train.importance import model_scores

    with ProgressBars(shown=options.verbosity >= 0) as bars:
        scores = model_scores(
            model,
            options,
            TaylorOptions(seed=options.seed),
            lambda done, total: bars("importance", done, total),
        )
    with tempfile.TemporaryDirectory(prefix="qcompile-") as folder:
        path = Path(folder) / IMPORTANCE_FILE
        path.write_text(importance_text(scores), encoding="utf-8")
        yield dataclasses.replace(options, prune_method=PruneMethod.FILE, prune_importance=path)


def check_torch(what: str) -> None:
    """
    Raises:
        UsageError: it is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError(f"{what}: needs torch: pip install 'qcompile[train]'")
