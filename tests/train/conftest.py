"""torch is an extra: without it nothing here can run. One thread, so that times do not jump."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs torch: pip install 'qcompile[train]'", allow_module_level=True)

import torch

torch.set_num_threads(1)
