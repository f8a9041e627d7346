"""Cuts the brain network to a smaller image, for small FPGAs and quick synthesis.

    python examples/brain/scale.py 48 build/brain48

writes `brain_48.onnx`, the same weights for 48 x 48 pixels, and `slices_48.npz`, the centres of the
training slices. It is for trying hardware: nothing is said about its Dice.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

HERE = Path(__file__).resolve().parent


def main() -> None:
    if len(sys.argv) != 3 or not sys.argv[1].isdigit() or int(sys.argv[1]) % 8:
        sys.exit("usage: scale.py SIZE FOLDER (SIZE a multiple of 8)")
    size, folder = int(sys.argv[1]), Path(sys.argv[2])
    model = onnx.load(HERE / "brain_unet.onnx")
    for value in (*model.graph.input, *model.graph.output):
        rows, columns = value.type.tensor_type.shape.dim[2:]
        rows.dim_value = columns.dim_value = size
    del model.graph.value_info[:]
    with np.load(HERE / "slices.npz") as slices:
        images = slices["train_x"]
    top, left = (images.shape[1] - size) // 2, (images.shape[2] - size) // 2
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / f"brain_{size}.onnx")
    np.savez(folder / f"slices_{size}.npz", x=images[:, top : top + size, left : left + size])


if __name__ == "__main__":
    main()
