from __future__ import annotations

from qcompile.errors import QCompileError, Unsupported, UnsupportedError


def test_messages_are_one_line_without_control_characters() -> None:
    error = QCompileError("Conv 'a\x1b[31m\x07\u202e': wrong\n  twice\r\n\tover")
    assert str(error) == "Conv 'a?[31m??': wrong twice over"


def test_unsupported_operators_are_listed_together() -> None:
    items = [Unsupported("LSTM", name, "recurrent", "unroll it") for name in ("a\n", "b")]
    error = UnsupportedError(items, "the importer")
    assert "LSTM 'a ': recurrent; unroll it | LSTM 'b'" in str(error)
    assert error.items == tuple(items)
