"""The tables of a sweep, for several classes."""

from __future__ import annotations

import csv
import io
import json
import math

from qcompile.prune_sweep import SweepRow, csv_text, json_text, table

ROWS = (
    SweepRow(0.0, "float", 10, 1000, 80_000, 4000, (0.8, 0.6), (0.7, 0.5)),
    SweepRow(0.3, "float", 7, 510, 40_000, 2040, (0.75, 0.5), (0.6, math.nan)),
)


def test_table() -> None:
    head, cells = table(ROWS)
    assert head[:4] == ["ratio", "network", "filters", "parameters"]
    assert head[-6:] == ["Dice 1", "IoU 1", "Dice 2", "IoU 2", "Dice mean", "IoU mean"]
    assert cells[0][3:7] == ["1,000", "100.0%", "80,000", "100.0%"]
    assert cells[1][:8] == ["0.3", "float", "7", "510", "51.0%", "40,000", "50.0%", "2,040"]
    assert cells[1][8:] == ["0.7500", "0.6000", "0.5000", "nan", "0.6250", "nan"]
    assert all(len(row) == len(head) for row in cells)


def test_one_class_needs_no_numbers() -> None:
    head, cells = table([SweepRow(0.0, "float", 1, 1, 1, 4, (0.5,), (0.25,))])
    assert head[-2:] == ["Dice", "IoU"]
    assert cells[0][-2:] == ["0.5000", "0.2500"]


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(ROWS))))
    assert list(rows[0])[6:] == ["dice_1", "dice_2", "iou_1", "iou_2"]
    assert (rows[1]["flops"], rows[1]["dice_2"], rows[1]["iou_1"]) == ("40000", "0.5", "0.6")


def test_json_has_no_nan() -> None:
    document = json.loads(json_text(ROWS, "net.onnx"), parse_constant=lambda name: 1 / 0)
    assert document["model"] == "net.onnx"
    assert document["rows"][1]["iou"] == [0.6, None]
    assert document["rows"][0]["dice"] == [0.8, 0.6]
