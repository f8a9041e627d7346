"""Fixtures that every test folder shares."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of test models and data beside the repository; skips where it is absent."""
    if not (SHARED / "models").is_dir():
        pytest.skip("no ../shared folder with models and data beside the repository")
    return SHARED
