"""Puts the pictures together: `report.html`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import jinja2

from qcompile.data_options import DiceOver
from qcompile.plan_file import option_text
from qcompile.report.columns import COLUMNS, NOTHING
from qcompile.report.document import Report
from qcompile.report.energy import Arithmetic, microjoule_text
from qcompile.report.html.attention import attention_picture, heat_colours
from qcompile.report.html.dice import dice_picture
from qcompile.report.html.energy import energy_picture
from qcompile.report.html.hardware import hardware_picture
from qcompile.report.html.histograms import histogram_picture
from qcompile.report.html.layers import layers_picture
from qcompile.report.html.names import plain
from qcompile.report.html.network import network_picture
from qcompile.report.html.network_faces import modes
from qcompile.report.html.overlays import overlays
from qcompile.report.html.scales import NOTABLE, amount_text, bytes_text, minus, share_text
from qcompile.report.html.trade_off import reason_rows, trade_off_picture
from qcompile.report.pruned import pruning_lines
from qcompile.report.summary import calibration_text, verification_text
from qcompile.report.ternary import TERNARY_HEAD, ternary_lines, ternary_rows

MANY = 3
"""Widths that are listed; more are a range."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the page."""

    caption: str
    value: str
    note: str
    tone: str = ""


def to_html(report: Report) -> str:
    """The whole page. Nothing in it is fetched from elsewhere, and it runs no script."""
    table = [tuple(column.text(row) for column in COLUMNS) for row in report.layers]
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            model=plain(report.model),
            version=report.version,
            sha256=report.sha256,
            subtitle=subtitle(report),
            tiles=tiles(report),
            warnings=[plain(text) for text in report.warnings],
            verified=report.verified,
            verification=verification_text(report),
            calibration=calibration_text(report),
            options=[(name, plain(option_text(value))) for name, value in report.options.items()],
            dice=dice_picture(report),
            several=report.evaluation is not None and len(report.evaluation.float_scores) > 1,
            overlays=overlays(report),
            attention=attention_picture(
                report.attention, report.verified, str(report.options.get("target"))
            ),
            heat=heat_colours(),
            network=network_picture(report) if report.layers else None,
            modes=modes(report),
            layers=layers_picture(report),
            histograms=histogram_picture(report),
            trade_off=trade_off_picture(report.trade_off, report.totals.dice_float),
            reasons=reason_rows(report),
            hardware=hardware_picture(report.hardware),
            energy=energy_picture(report),
            pruning=[(what, plain(text)) for what, text in pruning_lines(report)],
            ternary=_ternary(report),
            ternary_head=TERNARY_HEAD,
            columns=COLUMNS,
            table=[
                (plain(row.name), cells) for row, cells in zip(report.layers, table, strict=True)
            ],
            nothing=NOTHING,
        )
    )


def subtitle(report: Report) -> str:
    """One sentence on what was made: '4-bit weights and 6-bit activations, for C.'"""
    weights = _widths([row.weight_bits for row in report.layers if row.macs])
    outputs = _widths([row.activation_bits for row in report.layers if row.macs])
    target = str(report.options.get("target"))
    made = _MADE.get(target, f"as an ONNX model ({target.upper()})")
    return f"Weights of {weights}, activations of {outputs}, {made}"


_MADE = {
    "c": "as a C program",
    "hdl": "as an FPGA accelerator",
    "sim": "as a network file for the simulator",
}


def _widths(bits: Sequence[int | None]) -> str:
    """'4 bits', '3, 4 and 8 bits', '2 to 8 bits', '32-bit floats'."""
    found = sorted({item for item in bits if item is not None and item != 32})
    if not found:
        return "32-bit floats"
    if len(found) > MANY:
        return f"{found[0]} to {found[-1]} bits"
    names = [str(item) for item in found]
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{text} bit" if names == ["1"] else f"{text} bits"


def tiles(report: Report) -> tuple[Tile, ...]:
    """Dice and size, then what else was counted."""
    totals = report.totals
    found = [*_dice_tiles(report), _size_tile(report)]
    if totals.arena_bytes is not None:
        found.append(Tile("Working memory", bytes_text(totals.arena_bytes), "arena of the program"))
    if report.footprint is not None:
        flash, ram = report.footprint.flash_bytes, report.footprint.ram_bytes
        found.append(Tile("Flash", bytes_text(flash), report.footprint.flash_text))
        found.append(Tile("RAM", bytes_text(ram), report.footprint.ram_text))
    if report.hardware is not None:
        rate = report.hardware.fps
        found.append(
            Tile(
                "Frames per second",
                f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}",
                f"at {report.hardware.clock:g} MHz"
                + (f" on {report.hardware.device}" if report.hardware.device else ""),
            )
        )
    if report.energy is not None:
        columns = report.energy.columns
        chosen, real = columns[Arithmetic.CHOSEN].total, columns[Arithmetic.FLOAT32].total
        share = f", {share_text(chosen.total / real.total)} of float32" if real.total else ""
        text = microjoule_text(chosen.total)
        found.append(Tile("Energy of one image", text, f"analytical{share}"))
    found.append(
        Tile(
            "Multiply-accumulates",
            amount_text(totals.macs),
            f"{amount_text(totals.bops)} bit operations",
        )
    )
    return tuple(found)


def _dice_tiles(report: Report) -> list[Tile]:
    totals = report.totals
    if totals.dice_float is None or totals.dice_quantized is None:
        return [Tile("Dice", "not measured", "give labelled images with --data", "missing")]
    change = totals.dice_quantized - totals.dice_float
    tone = "loss" if change < -NOTABLE else "gain" if change > NOTABLE else "even"
    note = f"{minus(f'{100 * change:+.2f}')} points against float"
    return [
        Tile("Dice, quantised", f"{totals.dice_quantized:.4f}", note, tone),
        Tile("Dice, float", f"{totals.dice_float:.4f}", _mean_of(report)),
    ]


def _mean_of(report: Report) -> str:
    """What Dice is the mean of."""
    evaluation = report.evaluation
    if evaluation is None:
        return ""
    several = " and classes" if len(evaluation.float_scores) > 1 else ""
    over = {DiceOver.CASE: "mean over cases", DiceOver.POOLED: "all pixels pooled"}
    return over.get(evaluation.over, "mean over images") + several


def _size_tile(report: Report) -> Tile:
    totals = report.totals
    emitted = totals.weight_bytes_emitted
    size = totals.weight_bytes_nominal if emitted is None else emitted
    ratio = totals.ratio_nominal if emitted is None else totals.ratio_emitted
    smaller = "no parameters" if ratio is None else f"{ratio:.1f} times smaller than float"
    return Tile("Weights", bytes_text(size), smaller)


def _ternary(report: Report) -> tuple[list[tuple[str, str]], list[tuple[str, ...]]] | None:
    """Lines and a table of ternary layers, None without any."""
    if report.ternary is None:
        return None
    lines = [(what, plain(text)) for what, text in ternary_lines(report.ternary)]
    return lines, [(plain(row[0]), *row[1:]) for row in ternary_rows(report.ternary)]


@cache
def environment() -> jinja2.Environment:
    """Of the templates of pages."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("qcompile.templates", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
