"""`--prune-method taylor`: scores that are computed with torch before the compilation."""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcompile.errors import UsageError
from qcompile.options import CompileOptions
from qcompile.progress import ProgressBars
from qcompile.prune_options import IMPORTANCE_FILE, PruneMethod, prunes


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
    from qcompile.train.taylor_options import TaylorOptions

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
