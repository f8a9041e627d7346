"""The file of scores for `--prune-importance`: how much each filter matters, by ONNX node.

    {"/enc/Conv": [0.81, 0.02, 1.3], "/up/ConvTranspose": [0.4, 0.5]}        .json

    node,channel,score                                                       .csv
    /enc/Conv,0,0.81
    /enc/Conv,1,0.02

A node is any whose output has the channels meant: the convolution, or the norm or activation behind
it. Scores are compared with each other across layers as they are; small ones go first.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.errors import UsageError
from qcompile.types import Array

MAX_BYTES = 64 << 20
HEAD = ["node", "channel", "score"]

NodeScores = Mapping[str, Array]
"""ONNX node name -> float64 [C], the scores of its output's channels."""


def read_importance(path: Path) -> dict[str, Array]:
    """The scores of a .json or .csv file.

    Raises:
        UsageError: the file cannot be read or has another form.
    """
    where = f"--prune-importance {path.name}"
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{where}: is not a regular file; give a .json or .csv file")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{where}: larger than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: is not text in UTF-8 ({error.reason})") from None
    readers = {".json": _from_json, ".csv": _from_csv}
    if path.suffix.lower() not in readers:
        raise UsageError(f"{where}: is neither .json nor .csv; name it after what it holds")
    scores = readers[path.suffix.lower()](text, where)
    if not scores:
        raise UsageError(f"{where}: has no scores")
    return scores


def importance_text(scores: NodeScores) -> str:
    """The .json file of these scores."""
    plain = {node: [float(value) for value in values] for node, values in scores.items()}
    return json.dumps(plain, indent=1) + "\n"


def _from_json(text: str, where: str) -> dict[str, Array]:
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: is not valid JSON ({error})") from None
    if not isinstance(document, dict):
        raise UsageError(f'{where}: must be an object such as {{"/enc/Conv": [0.8, 0.1]}}')
    result = {}
    for node, values in document.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where}: node '{node}' needs a list of scores, one for each filter")
        numbers = [_score(value, f"{where}: node '{node}'") for value in values]
        result[node] = np.array(numbers, dtype=np.float64)
    return result


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a node is listed twice")
    return result


def _from_csv(text: str, where: str) -> dict[str, Array]:
    rows = csv.reader(io.StringIO(text), strict=True)
    found: dict[str, dict[int, float]] = {}
    try:
        head = next(rows, [])
        if [cell.strip().lower() for cell in head] != HEAD:
            raise UsageError(f"{where}: the first line must be {','.join(HEAD)}")
        for row in rows:
            if not row:
                continue
            place = f"{where} line {rows.line_num}"
            if len(row) != len(HEAD):
                raise UsageError(f"{place}: has {len(row)} cells instead of {len(HEAD)}")
            node, channel = row[0], row[1].strip()
            if not (channel.isascii() and channel.isdigit() and len(channel) < 10):
                raise UsageError(f"{place}: '{channel}' is no channel; count from 0")
            if int(channel) in found.setdefault(node, {}):
                raise UsageError(f"{place}: channel {channel} of node '{node}' is listed twice")
            found[node][int(channel)] = _score(row[2].strip(), place)
    except csv.Error as error:
        raise UsageError(f"{where}: is not valid CSV ({error})") from None
    result = {}
    for node, scores in found.items():
        missing = next((index for index in range(len(scores)) if index not in scores), None)
        if missing is not None:
            raise UsageError(f"{where}: node '{node}' has no score for channel {missing}")
        result[node] = np.array([scores[index] for index in range(len(scores))], dtype=np.float64)
    return result


def _score(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{where}: {str(value)[:40]!r} is no score; use finite numbers")
    return number
