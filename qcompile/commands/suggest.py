"""`qcompile suggest --models ENSEMBLE --pool IMAGES`: which images to annotate next."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qcompile.commands.compile import command, options_of, start_logging
from qcompile.commands.format_flags import says_formats
from qcompile.errors import UsageError
from qcompile.progress import ProgressBars

if TYPE_CHECKING:
    from qcompile.options import CompileOptions
    from qcompile.suggest.run import Suggestion

# fmt: off
HERE = frozenset(
    {
        "wbits", "abits", "quantizer", "first_last_bits", "calib", "calib_images", "effort",
        "range_method", "input_shape", "input_kind", "input_scale", "input_mean", "input_std",
        "window", "slices", "tile_halo", "config", "seed", "workers", "verbose", "quiet",
    }
)
# fmt: on
"""Flags of the main command about the networks, their formats and the images."""
FLAGS = [flag for flag in command.params if flag.name in HERE]


@click.command(
    "suggest",
    params=FLAGS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="With --wbits, --abits or --quantizer the networks are compiled, and their integers are "
    "asked. After annotating: --annotated suggestions.csv in the next round.",
)
@click.argument("more", nargs=-1, metavar="[MODEL.onnx]...", type=click.Path(path_type=Path))
@click.option(
    "--models",
    multiple=True,
    metavar="MODEL.onnx...|DIR",
    type=click.Path(path_type=Path),
    help="The ensemble: two or more networks, or the folder that 'qcompile ensemble' wrote.",
)
@click.option(
    "--pool",
    required=True,
    metavar="FILE|DIR",
    help="Images without labels: .npz (FILE.npz:KEY chooses an array), .npy, or what --images "
    "takes.",
)
@click.option("--count", type=int, required=True, metavar="N", help="Images to suggest.")
@click.option(
    "--candidates",
    type=int,
    metavar="N",
    help="Choose among so many of the most uncertain images.  [twice --count]",
)
@click.option(
    "--annotated",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Images of the pool that have labels: suggestions.csv of earlier rounds, or one name in "
    "a line. They are not suggested again, and count as covered.",
)
@click.option(
    "--features",
    metavar="NAME",
    help="Tensor that describes images.  [the one with the largest stride and most channels]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("suggested"),
    show_default=True,
    metavar="DIR",
    help="Output folder.",
)
def suggest(
    more: tuple[Path, ...],
    models: tuple[Path, ...],
    pool: str,
    count: int,
    candidates: int | None,
    annotated: tuple[Path, ...],
    features: str | None,
    output: Path,
    **given: Any,
) -> None:
    """Choose images that are worth annotating: an ensemble of networks is unsure about them, and
    they stand for many others of the pool.

    Writes the ranked list as CSV and JSON, pictures, and a page that shows them.
    """
    from qcompile.output import check_output, write_files
    from qcompile.suggest.ensemble_file import find_members
    from qcompile.suggest.files import suggestion_files
    from qcompile.suggest.run import SuggestOptions
    from qcompile.suggest.run import suggest as run

    given |= {
        flag.name: () if isinstance(flag, click.Option) and flag.multiple else None
        for flag in command.params
        if flag.name not in HERE and flag.name != "model" and flag.expose_value
    }
    if not any(Path(place).exists() for place in (pool, pool.rpartition(":")[0] or pool)):
        raise UsageError(f"--pool {pool}: no such file or folder; give images")
    given["calib"] = given["calib"] or pool
    options = options_of(dict(given))
    start_logging(options.verbosity)
    chosen = SuggestOptions(count, candidates, features, annotated)
    places = [*models, *more]
    if not places:
        raise UsageError("--models: give two or more ONNX files, or the folder of an ensemble")
    files = []
    for member in find_members(places):
        own = dict(given)
        if member.plan is not None and given["config"] is None:
            own["config"] = member.plan
        files.append((member, options_of(own), says_formats(own)))
    check_output(output)
    with ProgressBars(shown=options.verbosity >= 0) as bars, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = run(files, pool, chosen, bars)
        written = suggestion_files(found, found.opinions(options.workers or None))
    write_files(output, written)
    if options.verbosity >= 0:
        _print(found, output, options)


def _print(found: Suggestion, folder: Path, options: CompileOptions) -> None:
    from qcompile.suggest.files import PAGE_FILE

    first = found.members[0]
    formats = ", ".join(dict.fromkeys(item.formats for item in found.members))
    click.echo(
        f"{len(found.members)} networks ({formats}), {len(found.pool.names)} images, "
        f"{len(found.annotated)} with labels"
    )
    click.echo(f"described by '{first.features.value}', {first.features.channels} channels")
    for rank, (index, item) in enumerate(zip(found.images, found.chosen, strict=True), start=1):
        name, uncertainty = found.pool.names[index], found.uncertainty[index]
        click.echo(f"{rank:4}  uncertainty {uncertainty:.4f}  gain {item.gain:9.3f}  {name}")
    click.echo(f"pictures: {folder / PAGE_FILE}")
