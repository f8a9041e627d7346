"""Formats as options say them: flags, TOML and overrides."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from qcompile.cli import run
from qcompile.config import resolve
from qcompile.errors import UsageError
from qcompile.fixed_point import QFormat, is_q_format, parse_q_format
from qcompile.format_options import QUANTIZERS
from qcompile.options import CompileOptions, LayerOverride, Target
from qcompile.pipeline import compile_model
from qcompile.plan import Format, LayerPlan, Quantizer, parse_format
from tests.cli.test_cli import save_model

Q04, Q60 = QFormat(0, 4), QFormat(6, 0)


def test_every_quantizer_has_its_name() -> None:
    assert sorted(QUANTIZERS) == sorted(item.value for item in Quantizer)


@pytest.mark.parametrize("text", ["Q0.4", "q6.0", "Q-2.9", "Q7.-1"])
def test_fixed_point_names(text: str) -> None:
    assert is_q_format(text)
    assert str(parse_q_format(text, "--wq")).lower() == text.lower()


@pytest.mark.parametrize("text", ["Q4", "UQ0.4", "Q0,4", "Q0.4x", "", "Q100.1"])
def test_what_is_no_fixed_point_name(text: str) -> None:
    assert not is_q_format(text)
    with pytest.raises(UsageError, match="write it as"):
        parse_q_format(text, "--wq")


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        ({"wbits": "Q0.0"}, "Q0.0 has 0 digits; use 1 to 24"),
        ({"abits": "Q20.9"}, "Q20.9 has 29 digits"),
        ({"abits": "Q4"}, "'Q4' is no width; use 2 to 8"),
        ({"first_last_bits": "Q0.8"}, "--first-last-bits: 'Q0.8' is no width"),
        ({"quantizer": "inq"}, "'inq' is no quantizer; use one of scaled, fixed"),
    ],
)
def test_wrong_formats_are_errors(fields: dict[str, str], fragment: str) -> None:
    with pytest.raises(UsageError) as caught:
        CompileOptions(**fields)  # type: ignore[arg-type]
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("width", "quantizer", "weights", "wanted"),
    [
        ("4", Quantizer.FXP_PAPER, True, "Q0.4"),
        ("6", Quantizer.FXP_PAPER, False, "Q6.0"),
        ("16", Quantizer.FXP_PAPER, True, "Q8.8"),
        ("16", Quantizer.FXP_EM, False, "Q8.8"),
    ],
)
def test_bits_of_published_formats_are_their_digits(
    width: str, quantizer: Quantizer, weights: bool, wanted: str
) -> None:
    """As the publication pairs them: weights Q0.f, activations Qi.0."""
    found = parse_format(width, quantizer, "", weights)
    assert (str(found.q), found.width_name) == (wanted, wanted)


@pytest.mark.parametrize(
    ("width", "quantizer", "fragment"),
    [
        ("Q0.4", Quantizer.POW2, "Q0.4 with --quantizer pow2 is contradictory"),
        ("Q-1.4", Quantizer.FXP_PAPER, "fxp-paper has no Q-1.4"),
        ("4", Quantizer.TWN, "say ternary as the width"),
        ("9", Quantizer.FXP_PAPER, "'9' is no width"),
        ("17", Quantizer.FIXED, "'17' is no width"),
    ],
)
def test_contradictions(width: str, quantizer: Quantizer, fragment: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_format(width, quantizer, "--wbits")
    assert fragment in str(caught.value)


def test_implied_widths_are_those_of_the_papers() -> None:
    def widths(quantizer: str) -> tuple[str, str]:
        found = CompileOptions(quantizer=quantizer)
        return found.wbits, found.abits

    assert widths("fxp-paper") == widths("fxp-em") == ("4", "6")
    assert widths("twn") == ("ternary", "8")
    assert widths("pow2") == ("5", "8")
    assert widths("dorefa") == ("8", "8")


def test_a_format_says_its_own_scale() -> None:
    chosen = parse_format("Q6.2", Quantizer.FIXED, "")
    assert LayerPlan(chosen).scale == 0.25
    assert LayerPlan(chosen, scale=0.5).scale == 0.5
    assert LayerPlan(Format(4, Quantizer.DOREFA)).scale == 1 / 15
    assert LayerPlan(Format(6, Quantizer.FIXED)).scale is None


def test_overrides_of_layers() -> None:
    paper = Format(6, Quantizer.FXP_PAPER, Q04)
    scaled = Format(8, Quantizer.SCALED)
    own = LayerOverride("a", wbits="Q0.4", abits="Q6.0", quantizer="fxp-paper")
    assert own.weight_format(scaled, "scaled") == paper
    assert own.output_format(scaled, "scaled") == Format(7, Quantizer.FXP_PAPER, Q60)
    fixed = LayerOverride("a", wbits="Q0.4")
    # A width of its own takes the layer out of a rule that has none such.
    assert fixed.weight_format(scaled, "pow2") == Format(5, Quantizer.FIXED, Q04)
    assert LayerOverride("a", quantizer="scaled").weight_format(paper, "fxp-paper").bits == 4
    twn = LayerOverride("a", quantizer="twn")
    assert twn.weight_format(scaled, "scaled") == Format(2, Quantizer.TWN)
    assert twn.output_format(scaled, "scaled") == scaled
    with pytest.raises(UsageError, match="pow2 is for weights alone"):
        LayerOverride("a", activation_quantizer="pow2")


def test_one_published_layer_keeps_norms_out_of_all_weights() -> None:
    assert not CompileOptions().takes_weights_as_trained
    assert not CompileOptions(quantizer="ternary").takes_weights_as_trained
    assert CompileOptions(quantizer="pow2").takes_weights_as_trained
    layers = (LayerOverride("a", quantizer="fxp-paper"),)
    assert CompileOptions(layers=layers).takes_weights_as_trained


def test_a_scale_that_contradicts_the_format_is_an_error(tmp_path: Path) -> None:
    model = save_model(tmp_path / "blobs.onnx")
    layers = (LayerOverride("conv1", abits="Q6.0", scale=0.5),)
    with pytest.raises(
        UsageError, match=r"'conv1': scale 0.5 contradicts Q6\.0, whose steps are 1"
    ):
        compile_model(model, CompileOptions(target=Target.SIM, layers=layers))


@pytest.mark.parametrize("flags", [("--wq", "--aq"), ("--wbits", "--abits")])
def test_flags_and_toml_say_the_same(flags: tuple[str, str], tmp_path: Path) -> None:
    model = save_model(tmp_path / "blobs.onnx")
    out = tmp_path / "out"
    formats = [flags[0], "Q0.4", flags[1], "Q6.2", "--first-last-bits", "3"]
    assert run([str(model), "--target", "sim", *formats, "-q", "-o", str(out)]) == 0
    plan = tomllib.loads((out / "plan.toml").read_text())
    assert (plan["options"]["wbits"], plan["options"]["abits"]) == ("Q0.4", "Q6.2")
    config = tmp_path / "formats.toml"
    keys = [flag.removeprefix("--") for flag in flags]
    config.write_text(f'[[layer]]\nname = "conv1"\n{keys[0]} = "Q1.3"\n{keys[1]} = "Q5.1"\n')
    found = resolve({"config": config}).layer_override("conv1")
    default = Format(8, Quantizer.SCALED)
    assert str(found.weight_format(default, "scaled").q) == "Q1.3"
    assert str(found.output_format(default, "scaled").q) == "Q5.1"


def test_a_wrong_flag_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(tmp_path / "blobs.onnx")
    assert run([str(model), "--aq", "Q99.1", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_both_names_of_a_key_are_an_error(tmp_path: Path) -> None:
    config = tmp_path / "formats.toml"
    config.write_text('[options]\nwq = "Q0.4"\nwbits = 4\n')
    with pytest.raises(UsageError, match="'wq' and 'wbits' are one key"):
        resolve({"config": config})
