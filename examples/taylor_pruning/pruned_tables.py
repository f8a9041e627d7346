"""What was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pruned_cells import WHOLE, Cell, Settings


def tables(settings: Settings, found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What is known so far, as Markdown."""
    pruned = found.get("pruned", {})
    whole = pruned[WHOLE.key]
    methods = list(dict.fromkeys(cell.method for cell in settings.cells))
    shares = sorted({cell.share for cell in settings.cells}, reverse=True)
    for refit in (False, True):
        yield f"Dice without training, {'refitted' if refit else 'not refitted'}\n"
        cells = [[Cell(method, share, refit) for share in shares] for method in methods]
        known = [row for row in cells if any(cell.key in pruned for cell in row)]
        yield _table(
            ["scores", *(f"{share}% of the FLOPs" for share in shares)],
            [(row[0].method.name, *(_dice(pruned, cell) for cell in row)) for row in known],
        )
    yield f"After {settings.epochs} epochs of training\n"
    rows: list[tuple[str, ...]] = []
    for cell in settings.tuned:
        before = pruned.get(cell.key)
        runs = [found.get("tuned", {}).get(f"{cell.key}-seed{seed}") for seed in settings.seeds]
        done = [item for item in runs if item is not None]
        if before is None or not done:
            continue
        rows.append(
            (
                cell.method.name,
                "yes" if cell.refit else "no",
                f"{before['parameters']:,} ({before['parameters'] / whole['parameters']:.0%})",
                f"{before['flops']:,} ({before['flops'] / whole['flops']:.1%})",
                f"{before['dice']:.4f}",
                f"{before['iou']:.4f}",
                ", ".join(f"{item['dice']:.4f}" for item in done),
                ", ".join(f"{item['iou']:.4f}" for item in done),
                ", ".join(f"{item['last']:.4f}" for item in done),
            )
        )
    head = ["scores", "refitted", "parameters", "FLOPs", "Dice before", "IoU before"]
    yield _table([*head, "Dice", "IoU", "Dice, last epoch"], rows)
    yield f"Compiled, weights of {settings.wbits} bits and activations of {settings.abits}\n"
    times = found.get("timed", {}).get("all", {})
    rows = []
    for cell in (WHOLE, *settings.compiled):
        item = found.get("compiled", {}).get(cell.key)
        if item is None:
            continue
        time = times.get(cell.key)
        rows.append(
            (
                cell.method.name,
                f"{cell.share}%",
                "yes" if cell in settings.tuned and cell != WHOLE else "no",
                f"{item['dice_float']:.4f}",
                f"{item['dice']:.4f}",
                f"{item['nominal']:,}",
                f"{item['emitted']:,}",
                f"{item['arena']:,}",
                "" if time is None else f"{time * 1e3:.2f}",
                "" if time is None else f"{times[WHOLE.key] / time:.2f}",
            )
        )
    head = [
        "scores",
        "FLOPs left",
        "trained",
        "Dice float",
        "Dice",
        "bytes nominal",
        "bytes emitted",
    ]
    yield _table([*head, "arena", "ms", "times as fast"], rows)


def _dice(pruned: Mapping[str, Any], cell: Cell) -> str:
    return f"{pruned[cell.key]['dice']:.4f}" if cell.key in pruned else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
