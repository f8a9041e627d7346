"""Files of scores: both forms, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcompile.errors import UsageError
from qcompile.importance_file import importance_text, read_importance


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_json(tmp_path: Path) -> None:
    path = write(tmp_path, "scores.json", '{"/a/Conv": [1, 0.5e-3, -2], "b": [0.25]}')
    scores = read_importance(path)
    assert list(scores) == ["/a/Conv", "b"]
    np.testing.assert_array_equal(scores["/a/Conv"], [1, 0.5e-3, -2])
    assert scores["b"].dtype == np.float64


def test_csv_in_any_order_of_rows(tmp_path: Path) -> None:
    text = 'Node,Channel,Score\r\n"a, the first",1,0.5\r\nb,0,2\r\n\r\n"a, the first",0,1e-3\r\n'
    scores = read_importance(write(tmp_path, "scores.csv", text))
    np.testing.assert_array_equal(scores["a, the first"], [1e-3, 0.5])
    np.testing.assert_array_equal(scores["b"], [2.0])


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    scores = {"a": np.array([0.1, 1 / 3, 1e-300]), "b": np.array([2.0])}
    again = read_importance(write(tmp_path, "again.json", importance_text(scores)))
    assert list(again) == list(scores)
    for name, values in scores.items():
        np.testing.assert_array_equal(again[name], values)


@pytest.mark.parametrize(
    ("name", "text", "fragment"),
    [
        ("s.txt", "{}", "neither .json nor .csv"),
        ("s.json", "{}", "has no scores"),
        ("s.json", "[1, 2]", "must be an object"),
        ("s.json", "{", "not valid JSON"),
        ("s.json", "[" * 100_000, "not valid JSON"),
        ("s.json", '{"a": 1}', "node 'a' needs a list of scores"),
        ("s.json", '{"a": []}', "node 'a' needs a list of scores"),
        ("s.json", '{"a": [1, NaN]}', "node 'a': 'nan' is no score"),
        ("s.json", '{"a": [1e999]}', "is no score"),
        ("s.json", '{"a": [true]}', "is no score"),
        ("s.json", '{"a": ["many"]}', "'many' is no score"),
        ("s.json", '{"a": [1], "a": [2]}', "listed twice"),
        ("s.csv", "", "first line must be node,channel,score"),
        ("s.csv", "a,0,1\n", "first line must be node,channel,score"),
        ("s.csv", "node,channel,score\n", "has no scores"),
        ("s.csv", "node,channel,score\na,0\n", "line 2: has 2 cells instead of 3"),
        ("s.csv", "node,channel,score\na,-1,2\n", "line 2: '-1' is no channel"),
        ("s.csv", "node,channel,score\na,0,1\na,0,2\n", "line 3: channel 0 of node 'a' is listed"),
        ("s.csv", "node,channel,score\na,0,1\na,2,2\n", "node 'a' has no score for channel 1"),
        ("s.csv", "node,channel,score\na,0,x\n", "line 2: 'x' is no score"),
        ("s.csv", 'node,channel,score\n"a,0,1\n', "not valid CSV"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, text: str, fragment: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_importance(write(tmp_path, name, text))
    assert fragment in str(caught.value)
    assert str(caught.value).startswith(f"--prune-importance {name}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_importance(tmp_path / "none.json")
    with pytest.raises(UsageError, match="not a regular file"):
        read_importance(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not text in UTF-8"):
        read_importance(tmp_path / "binary.json")
