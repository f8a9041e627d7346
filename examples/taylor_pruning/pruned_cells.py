"""Which networks are pruned, trained and compiled, and how their filters are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qcompile.prune_options import PruneMethod, PruneScope
from qcompile.train.taylor_options import TaylorMode, TaylorOf, TaylorOptions


@dataclass(frozen=True)
class Method:
    """A way to choose filters: by scores of the compiler, or Taylor's."""

    name: str
    method: PruneMethod
    taylor: TaylorOptions | None = None
    scope: PruneScope = PruneScope.GLOBAL


@dataclass(frozen=True)
class Cell:
    """One pruned network.

    Attributes:
        method: what chose its filters.
        share: of the FLOPs that is left, in percent.
        refit: whether layers behind removed filters are fitted to what they computed before.
    """

    method: Method
    share: int
    refit: bool = True

    @property
    def key(self) -> str:
        """Names its results and files."""
        name = self.method.name.replace(" ", "-")
        return f"{name}-{self.share}{'' if self.refit else '-unfitted'}"


WHOLE = Cell(Method("not pruned", PruneMethod.AUTO), 100)


def taylor(of: TaylorOf, mode: TaylorMode, raw: bool = False) -> Method:
    """With gradients as they are, or of one length. Those of the sum of the outputs have one length
    anyway, random ones nearly, so that only those of the loss differ."""
    name = f"taylor {of.value} {mode.value}{' raw' * raw}"
    return Method(name, PruneMethod.TAYLOR, TaylorOptions(of, mode, not raw))


L1 = Method("l1", PruneMethod.L1)
L1_LAYERS = Method("l1 layer by layer", PruneMethod.L1, scope=PruneScope.LAYER)
ERROR = Method("error", PruneMethod.ERROR)
TAYLOR = taylor(TaylorOf.OUTPUT, TaylorMode.ABSOLUTE)
MODES = tuple(taylor(of, mode) for of in TaylorOf for mode in TaylorMode)
RAW = tuple(taylor(TaylorOf.LOSS, mode, raw=True) for mode in TaylorMode)
SHARES = (75, 50, 40, 30)


@dataclass(frozen=True)
class Settings:
    """How much is done.

    Attributes:
        cells: networks that are measured without training.
        repeated: networks that are trained with every seed.
        single: networks that are trained with the first seed.
        compiled: networks that are compiled, as trained with the first seed, if they were.
        seeds: of the training.
        epochs: of the training.
        images: that scores are computed on.
        subset: training and validation images; None: all.
        wbits, abits: of weights and activations of what is compiled.
    """

    cells: tuple[Cell, ...]
    repeated: tuple[Cell, ...]
    single: tuple[Cell, ...]
    compiled: tuple[Cell, ...]
    seeds: tuple[int, ...]
    epochs: int
    images: int
    subset: tuple[int, int] | None = None
    wbits: str = "4"
    abits: str = "6"

    @property
    def tuned(self) -> tuple[Cell, ...]:
        """All networks that are trained."""
        return self.repeated + self.single

    @property
    def runs(self) -> Iterator[tuple[Cell, int]]:
        """Each training, with its seed."""
        for seed in self.seeds:
            for cell in self.repeated:
                yield cell, seed
        for cell in self.single:
            yield cell, self.seeds[0]


METHODS = (L1, L1_LAYERS, ERROR, *MODES, *RAW)
FULL = Settings(
    cells=(
        *(Cell(method, share, refit=False) for method in METHODS for share in SHARES),
        *(Cell(method, 50) for method in METHODS),
    ),
    repeated=(WHOLE, *(Cell(method, 50) for method in (TAYLOR, L1_LAYERS))),
    single=(
        *(Cell(method, share) for share in (30, 40, 75) for method in (TAYLOR, L1_LAYERS)),
        *(Cell(ERROR, share) for share in (50, 30)),
        Cell(L1, 50),
    ),
    compiled=(
        *(Cell(TAYLOR, share) for share in SHARES),
        Cell(L1_LAYERS, 50),
        *(Cell(ERROR, share) for share in (50, 30)),
    ),
    seeds=(0, 1),
    epochs=2,
    images=64,
)
QUICK = Settings(
    cells=tuple(Cell(method, 50, refit=False) for method in (L1, ERROR, TAYLOR)),
    repeated=(Cell(TAYLOR, 50), Cell(L1, 50)),
    single=(),
    compiled=(Cell(TAYLOR, 50),),
    seeds=(0,),
    epochs=1,
    images=16,
    subset=(48, 8),
)
