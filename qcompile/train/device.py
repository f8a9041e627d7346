"""Where torch computes."""

from __future__ import annotations

import torch

from qcompile.errors import UsageError


def torch_device(name: str) -> torch.device:
    """The device of `--device`.

    Args:
        name: 'cpu', 'cuda', or 'auto' for CUDA where it is.

    Raises:
        UsageError: there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    # Ten bits of significand would round what lies on its grid already.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(name)
