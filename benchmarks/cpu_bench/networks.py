"""The networks of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from .unet import UNet

TRAINED = ("em_unet16", "pancreas_unet16", "gm_unet8", "cvc_resunet")
TERNARY_SHARE = 0.5


@dataclass(frozen=True)
class Setting:
    """One way to compile a network: the float32 model and the widths of weights and activations."""

    name: str
    model: Path
    wbits: str = "4"
    abits: str = "6"


@dataclass(frozen=True)
class Network:
    """A network, the float32 model that the peers run, and how it is compiled."""

    name: str
    text: str
    model: Path
    settings: tuple[Setting, ...]


def synthetic(name: str, folder: Path) -> Network:
    """U-Net `S` (base 16) or `M` (base 64). S comes with a fully ternary network of its layers,
    which the peers have no faster way to run than S itself."""
    base = {"S": 16, "M": 64}[name]
    text = f"U-Net, base {base}, depth 4, 1x1x256x256, random weights"
    dense = _save(UNet(base).build(), folder / f"{name}.onnx")
    settings = [Setting("w4a6", dense)]
    if name == "S":
        ternary = UNet(base, ternary_share=TERNARY_SHARE).build()
        model = _save(ternary, folder / f"{name}-ternary.onnx")
        settings.append(Setting("ternary", model, "ternary", "ternary"))
    return Network(name, text, dense, tuple(settings))


def trained(folder: Path) -> Sequence[Network]:
    """The trained networks whose files lie in the folder."""
    models = [folder / f"{name}.onnx" for name in TRAINED]
    return [
        Network(model.stem, "trained", model, (Setting("w4a6", model),))
        for model in models
        if model.exists()
    ]


def _save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path
