"""Options of `--target hdl`: what is allowed, what contradicts what, and how plans carry them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qcompile.config import OPTION_KEYS, resolve
from qcompile.devices import DEVICES, find_device
from qcompile.errors import UsageError
from qcompile.hdl_options import HDL_DEFAULTS, FifoPolicy
from qcompile.options import CompileOptions, Target
from qcompile.plan import Plan
from qcompile.plan_file import HDL_KEYS, PLAN_KEYS, options_table, plan_text
from qcompile.prune_options import PRUNE_DEFAULTS

GIVEN: dict[str, Any] = {
    "device": "ecp5-85k",
    "clock": 80.0,
    "target_fps": 30.0,
    "multipliers": 12,
    "fifos": FifoPolicy.MINIMUM,
}


def hdl(**fields: Any) -> CompileOptions:
    return CompileOptions(target=Target.HDL, **fields)


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_of_the_options() -> None:
    options = hdl()
    assert {name: getattr(options, name) for name in HDL_DEFAULTS} == HDL_DEFAULTS
    assert set(HDL_KEYS) < set(HDL_DEFAULTS) < set(OPTION_KEYS)


@pytest.mark.parametrize(("name", "value"), [*GIVEN.items(), ("fold", Path("f")), ("synth", True)])
def test_other_targets_refuse_them(name: str, value: Any) -> None:
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(UsageError, match=f"^{flag}: is for --target hdl only, not for --target c"):
        CompileOptions(**{name: value})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"clock": 0.0}, "--clock: 0 MHz is out of range; use 1 to 1000"),
        ({"clock": float("nan")}, "--clock: nan MHz is out of range"),
        ({"target_fps": 0.0}, "--target-fps: 0.0 is no rate"),
        ({"target_fps": float("inf")}, "--target-fps: inf is no rate"),
        ({"multipliers": -1}, "--multipliers: -1 is out of range"),
        ({"synth": True}, "--synth: needs --device"),
        ({"device": "ecp5-84k"}, "'ecp5-84k' is unknown; did you mean ecp5-85k or ecp5-45k"),
        ({"device": "cyclone"}, "'cyclone' is unknown; "),
        ({"device": "ice40-up5k", "multipliers": 9}, "ice40-up5k has 8, not 9; use fewer"),
        ({"fifos": "deep"}, "fifos: 'deep' is unknown; use rate, minimum"),
        ({"entry": "wire"}, "'wire' is no usable name of a Verilog or VHDL module"),
        ({"entry": "Entity"}, "is no usable name of a Verilog or VHDL module"),
        ({"entry": "my__net"}, "is no usable name of a Verilog or VHDL module"),
    ],
)
def test_wrong_values_and_contradictions_are_one_line_errors(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        hdl(**fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_c_names_need_not_be_names_of_modules() -> None:
    assert CompileOptions(entry="wire").entry == "wire"


def test_a_rate_within_a_number_of_multipliers_is_no_contradiction() -> None:
    options = hdl(**GIVEN)
    assert (options.target_fps, options.multipliers) == (30.0, 12)


def test_plain_values_from_python() -> None:
    options = CompileOptions(target="hdl", fold="f.toml", fifos="minimum", device="ECP5-85K")  # type: ignore[arg-type]
    assert options == hdl(fold=Path("f.toml"), fifos=FifoPolicy.MINIMUM, device="ecp5-85k")


def test_a_plan_carries_them(tmp_path: Path) -> None:
    options = hdl(**GIVEN)
    path = write(tmp_path, plan_text(options, Plan({}, {})))
    again = resolve({"config": path})
    assert {name: getattr(again, name) for name in GIVEN} == GIVEN
    assert options_table(again) == options_table(options)


def test_a_plan_of_another_target_does_not_have_them() -> None:
    assert set(options_table(CompileOptions())) == set(PLAN_KEYS) - set(PRUNE_DEFAULTS)
    assert "device" not in options_table(hdl())


def test_the_plan_of_an_accelerator_serves_for_c(tmp_path: Path) -> None:
    path = write(tmp_path, plan_text(hdl(**GIVEN), Plan({}, {})))
    assert resolve({"config": path, "target": Target.C}).device is None
    text = '[options]\ntarget = "c"\ndevice = "ecp5-85k"\n'
    with pytest.raises(UsageError, match="for --target hdl only"):
        resolve({"config": write(tmp_path, text)})


def test_a_folding_is_relative_to_the_file_and_goes_with_limits(tmp_path: Path) -> None:
    text = '[options]\ntarget = "hdl"\nfold = "f.toml"\nmultipliers = 4\n'
    options = resolve({"config": write(tmp_path, text), "target_fps": 5.0})
    assert (options.fold, options.multipliers) == (tmp_path / "f.toml", 4)


def test_numbers_of_the_devices() -> None:
    for name, device in DEVICES.items():
        assert find_device(name.upper()) is device
        assert (device.name, device.lut_inputs in (4, 6)) == (name, True)
        assert list(device.ram_block_widths) == sorted(device.ram_block_widths)
        assert device.place_and_route == bool(device.router_options)
    assert DEVICES["ecp5-85k"].ram_bits == 3744 * 1024
    assert DEVICES["xc7z020"].ram_bits == 140 * 36 * 1024
    assert DEVICES["ice40-up5k"].ram_bits == 120 * 1024
