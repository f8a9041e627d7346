"""What `compile_model` returns, and the files that it stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qcompile.backends.artifacts import Artifacts
from qcompile.graph import Graph
from qcompile.importance_file import importance_text, read_importance
from qcompile.options import CompileOptions
from qcompile.output import write_files
from qcompile.plan import Plan
from qcompile.plan_file import plan_text
from qcompile.prune_options import IMPORTANCE_FILE
from qcompile.report.document import Report
from qcompile.report.format_notes import format_notes
from qcompile.report.html.page import to_html
from qcompile.report.markdown import to_markdown
from qcompile.search.found import Found
from qcompile.search.trade_off_files import trade_off_files


@dataclass(frozen=True)
class CompileResult:
    """One compilation.

    Attributes:
        options: as resolved.
        float_graph: the network as it was quantised: simplified, pruned, in float.
        integer_graph: what the artifacts compute.
        plan: formats of all tensors, with the scales that calibration found.
        artifacts: what the back end emitted.
        report: the table.
        timings: stage -> seconds.
        verified: whether C and simulator agreed; None if not asked for.
        dumps: the graph after each pass as text, by file name (only with `dump_ir`).
        searched: what was tried for the budgets; None without any.
    """

    options: CompileOptions
    float_graph: Graph
    integer_graph: Graph
    plan: Plan
    artifacts: Artifacts
    report: Report
    timings: Mapping[str, float] = field(default_factory=dict)
    verified: bool | None = None
    dumps: Mapping[str, str] = field(default_factory=dict)
    searched: Found | None = None

    def files(self) -> dict[str, str | bytes]:
        """Everything that goes into the output folder: relative path -> content."""
        pruned_by = self.options.prune_importance
        scores = {}
        if pruned_by is not None:
            # The plan names this copy, so that it repeats the run from its own folder.
            scores[IMPORTANCE_FILE] = importance_text(read_importance(pruned_by))
        timings = {stage: round(seconds, 4) for stage, seconds in self.timings.items()}
        return {
            **self.artifacts.files,
            **({} if self.searched is None else trade_off_files(self.searched)),
            **scores,
            **({} if self.report.attention is None else self.report.attention.files()),
            "report.json": self.report.to_json(),
            "report.md": to_markdown(self.report),
            "report.html": to_html(self.report),
            "plan.toml": plan_text(
                self.options,
                self.plan,
                f"Model: {self.report.model}",
                format_notes(self.report.layers),
            ),
            "timings.json": json.dumps(timings, indent=2) + "\n",
        }

    def write(self, folder: Path | str) -> None:
        """Writes all files, completely or not at all."""
        write_files(Path(folder), self.files())
