from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qcompile.config import load_config, resolve
from qcompile.data_options import parse_data_keys
from qcompile.errors import UsageError
from qcompile.options import (
    CompileOptions,
    InputChoice,
    LayerOverride,
    OutputKind,
    Target,
    parse_input_shape,
    parse_numbers,
    parse_target,
)
from qcompile.plan import Format, LayerPlan, Plan, Quantizer
from qcompile.plan_file import PLAN_KEYS, plan_text


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, '[options]\nwbits = 4\nabits = "6"\nseed = 7\n')
    options = resolve({"config": path, "abits": "5", "seed": None})
    assert (options.wbits, options.abits, options.seed) == ("4", "5", 7)
    assert options.first_last_bits == "8"


def test_input_shapes_of_both_are_merged(tmp_path: Path) -> None:
    path = write(tmp_path, "[options.input_shapes]\na = [1, 1, 8, 8]\nb = [1, 3]\n")
    options = resolve({"config": path, "input_shapes": {"b": (1, 4)}})
    assert options.input_shapes == {"a": (1, 1, 8, 8), "b": (1, 4)}


def test_files_in_a_config_are_relative_to_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path, '[options]\ncalib = "images"\noutput = "out"\n')
    fields = load_config(path)
    assert fields["calib"] == str(tmp_path / "images")
    assert fields["output"] == tmp_path / "out"


@pytest.mark.parametrize(
    ("fields", "width"),
    [
        ({}, "8"),
        ({"quantizer": "fixed"}, "8"),
        ({"quantizer": "ternary"}, "ternary"),
        ({"quantizer": "binary"}, "binary"),
        ({"quantizer": "pow2"}, "5"),
        ({"quantizer": "pow2", "wbits": "4"}, "4"),
        ({"quantizer": "fixed", "wbits": "ternary"}, "ternary"),
    ],
)
def test_the_quantizer_implies_the_width_of_weights(fields: dict[str, Any], width: str) -> None:
    assert resolve(fields).wbits == width


def test_plain_values_from_python() -> None:
    options = CompileOptions(
        target="sim",  # type: ignore[arg-type]
        wbits=4,  # type: ignore[arg-type]
        calib=Path("a.npz"),  # type: ignore[arg-type]
        output="out",  # type: ignore[arg-type]
        output_kind="classes",  # type: ignore[arg-type]
        input_mean=0.5,  # type: ignore[arg-type]
    )
    assert options == CompileOptions(
        target=Target.SIM,
        wbits="4",
        calib="a.npz",
        output=Path("out"),
        output_kind=OutputKind.CLASSES,
        input_mean=(0.5,),
    )
    with pytest.raises(UsageError, match="'mask' is unknown; use auto, logits"):
        CompileOptions(output_kind="mask")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("[options]\nwbitz = 4\n", ["unknown key 'wbitz'", "allowed are target, wbits"]),
        ("[option]\n", ["unknown key 'option'", "options, layer, input"]),
        ('[[layer]]\nname = "a"\nbits = 3\n', ["unknown key 'bits'", "wbits"]),
        ("[[layer]]\nwbits = 3\n", ["needs a name"]),
        ('[[layer]]\nname = "a"\nwbits = 9\n', ["'9' is no width"]),
        ('[[layer]]\nname = "a"\nscale = -1.0\n', ["-1.0 is no scale"]),
        ('[[layer]]\nname = "a"\nscale = 1e-300\n', ["is no scale"]),
        ('[[layer]]\nname = "a"\nscale = 1e300\n', ["is no scale"]),
        ('[[layer]]\nname = "a"\nscale = nan\n', ["is no scale"]),
        ('[[layer]]\nname = "a"\nsigned = 1\n', ["must be true or false"]),
        ('[[layer]]\nname = "a"\nquantizer = "best"\n', ["'best' is no quantizer"]),
        ('[[input]]\nname = "a"\nwbits = 4\n', ["unknown key 'wbits'"]),
        ("[options]\nseed = 1.5\n", ["must be a whole number"]),
        ("[options]\nprune = 1.0\n", ["is no ratio"]),
        ('[options]\ntarget = "rtl"\n', ["'rtl' is no target; use one of c, hdl, sim"]),
        ('[options]\noutput_kind = "mask"\n', ["'mask' is unknown", "classes"]),
        ('[options]\ndata_keys = ["a"]\n', ["the keys of the images"]),
        ("[options\n", ["not valid TOML"]),
        ("[options]\nmin_dice = 0.5\n", ["need --data"]),
    ],
)
def test_wrong_files_are_one_line_errors(tmp_path: Path, text: str, fragments: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        resolve({"config": path})
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "fields",
    [
        {"wbits": "9"},
        {"abits": "four"},
        {"first_last_bits": "1"},
        {"quantizer": "int8"},
        {"prune": -0.1},
        {"metric_threshold": 1.5},
        {"calib_images": 0},
        {"input_scale": (0.0,)},
        {"input_std": (1.0, 0.0)},
        {"input_mean": (float("nan"),)},
        {"input_shapes": {"x": (1, 0)}},
        {"entry": "3d"},
        {"entry": "int"},
        {"entry": "Test"},
        {"entry": "stdint"},
        {"entry": 'a"; system("x"); //'},
        {"max_dice_drop": 0.1},
        {"seed": -1},
    ],
)
def test_values_out_of_range_are_errors(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CompileOptions(**fields)


def test_exact_names_win_over_patterns_and_later_patterns_over_earlier() -> None:
    options = CompileOptions(
        layers=(
            LayerOverride("/up/Conv", wbits="8"),
            LayerOverride("*", wbits="3", abits="5"),
            LayerOverride("/up/*", wbits="4"),
        )
    )
    assert options.layer_override("/down/Conv").wbits == "3"
    assert options.layer_override("/up/Conv_1").wbits == "4"
    found = options.layer_override("/up/Conv")
    assert (found.pattern, found.wbits, found.abits) == ("/up/Conv", "8", "5")


def test_a_name_with_pattern_characters_matches_itself() -> None:
    assert LayerOverride("conv[0]").matches("conv[0]")


def test_formats_of_an_override() -> None:
    default = Format(4, Quantizer.SCALED)
    assert LayerOverride("a").weight_format(default, "scaled") == default
    assert LayerOverride("a", wbits="6").weight_format(default, "fixed").bits == 6
    assert LayerOverride("a", wbits="6").weight_format(default, "fixed").power_of_two_scale
    ternary = Format(2, Quantizer.TERNARY)
    assert LayerOverride("a", wbits="8").weight_format(ternary, "ternary") == Format(
        8, Quantizer.SCALED
    )
    assert LayerOverride("a", quantizer="ternary").weight_format(default, "scaled") == ternary
    both = LayerOverride("a", quantizer="pow2", activation_quantizer="scaled")
    assert both.weight_format(default, "scaled").quantizer is Quantizer.POW2
    assert both.output_format(default, "scaled").quantizer is Quantizer.SCALED


def test_a_written_plan_gives_the_same_formats_and_exact_scales(tmp_path: Path) -> None:
    scale = 0.1 + 0.2
    plan = Plan(
        {"input": LayerPlan(Format(8, Quantizer.SCALED), scale=1 / 255, signed=False)},
        {
            "conv": LayerPlan(
                Format(6, Quantizer.SCALED), Format(2, Quantizer.TERNARY), scale, True
            ),
            'odd "name"\n': LayerPlan(Format(32, Quantizer.SCALED), Format(1, Quantizer.BINARY)),
            "pool": LayerPlan(Format(6, Quantizer.FIXED)),
            "pow": LayerPlan(Format(6, Quantizer.SCALED), Format(5, Quantizer.POW2)),
        },
    )
    options = CompileOptions(
        target=Target.SIM,
        wbits="ternary",
        input_kind=InputChoice.UINT8,
        input_mean=(0.5, 0.25, 1 / 3),
        input_shapes={"input": (1, 3, 8, 8)},
        calib="secret/folder",
        output=Path("secret"),
    )
    text = plan_text(options, plan, "Model: a\nb.onnx")
    assert "secret" not in text
    assert "[options]" in text
    again = resolve({"config": write(tmp_path, text)})
    for key in PLAN_KEYS:
        assert getattr(again, key) == getattr(options, key), key
    default = Format(3, Quantizer.SCALED)
    for name, layer in plan.layers.items():
        found = again.layer_override(name)
        assert found.output_format(default, "fixed") == layer.output
        if layer.weights is not None:
            assert found.weight_format(default, "fixed") == layer.weights
        assert (found.scale, found.signed) == (layer.scale, layer.signed)
    assert again.input_override("input").scale == 1 / 255
    assert plan_text(again, plan, "Model: a\nb.onnx") == text


def test_parsers() -> None:
    assert parse_input_shape("x:0=1,3,8,8") == ("x:0", (1, 3, 8, 8))
    assert parse_input_shape("a=b=1,2") == ("a=b", (1, 2))
    assert parse_numbers("1/255", "--x") == (1 / 255,)
    assert parse_numbers("0.5,0.25", "--x") == (0.5, 0.25)
    assert parse_data_keys("a,b") == ("a", "b")
    assert parse_target("sim") is Target.SIM


@pytest.mark.parametrize("text", ["1,2", "x=", "=1,2", "x=1,a", ""])
def test_wrong_shapes(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=1,1,256,256"):
        parse_input_shape(text)


@pytest.mark.parametrize("text", ["", "a", "1/0", "1,,2"])
def test_wrong_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="--input-scale"):
        parse_numbers(text, "--input-scale")


def test_options_and_command_line_import_nothing_heavy() -> None:
    code = (
        "import sys, qcompile.cli, qcompile.options; "
        "print([m for m in ('numpy', 'onnx', 'networkx', 'rich', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
