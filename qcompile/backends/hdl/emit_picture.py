"""design.svg: the layers from top to bottom, their rates, foldings and FIFOs; skips as arcs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from qcompile.backends.hdl.emit_request import EmitRequest, LayerRow
from qcompile.hw.design import Design

ROW = 58
BOX_HEIGHT = 38
BOX_LEFT = 24
BOX_WIDTH = 450
LANE = 22
TOP = 78
BAR_WIDTH = 180
FIRST_LANE = 116
"""Right of the boxes: room for the label of a FIFO."""

_STYLE = """
  text { font-family: sans-serif; font-size: 12px; fill: #202830; }
  .title { font-size: 17px; font-weight: bold; }
  .name { font-weight: bold; }
  .small { font-size: 11px; fill: #4a5560; }
  .box { fill: #eef3f8; stroke: #6f8296; }
  .slow { fill: #fdeed8; stroke: #c8741a; stroke-width: 2; }
  .port { fill: #e6f4e6; stroke: #5c8f5c; }
  .bar { fill: #9db4cc; }
  .slowbar { fill: #e0943a; }
  .edge { fill: none; stroke: #52616f; stroke-width: 1.4; }
  .skip { fill: none; stroke: #2f6db5; stroke-width: 1.6; }
  .fifo { fill: #ffffff; stroke: #2f6db5; }
"""


@dataclass(frozen=True, slots=True)
class Link:
    """A tensor from row `start` to row `end`, through FIFOs of `depth` beats in all."""

    start: int
    end: int
    depth: int
    port: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One box: a layer, or an input or output of the network."""

    title: str
    text: str
    layer: LayerRow | None = None


def picture(request: EmitRequest) -> str:
    """The SVG text."""
    found = rows(request)
    links = layer_links(request)
    lanes = arc_lanes(links)
    width = BOX_LEFT + BOX_WIDTH + FIRST_LANE + LANE * (1 + max(lanes.values(), default=0))
    height = TOP + ROW * len(found) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#52616f"/></marker>'
        "</defs>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(BOX_LEFT, 26, _short(request.network or request.entry, 60), "title"),
        *(
            _text(BOX_LEFT, 45 + 16 * line, text, "small")
            for line, text in enumerate(_summary(request))
        ),
    ]
    parts += [_draw_link(link, lanes.get(link)) for link in links]
    slowest = max((layer.cycles for layer in request.layers), default=1)
    for index, row in enumerate(found):
        parts += _draw_row(row, index, slowest, request.bottleneck)
    return "\n".join([*parts, "</svg>", ""])


def rows(request: EmitRequest) -> list[Row]:
    """Inputs, layers, outputs: top to bottom."""
    inputs = [_port_row(port.name, port.tensor.value, str(port.tensor.kind), port.stream.beats)
              for port in request.input_ports]  # fmt: skip
    outputs = [_port_row(port.name, port.tensor.value, str(port.tensor.kind), port.stream.beats)
               for port in request.output_ports]  # fmt: skip
    layers = [Row(f"{layer.name}", _layer_text(layer), layer) for layer in request.layers]
    return [*inputs, *layers, *outputs]


def layer_links(request: EmitRequest) -> list[Link]:
    """Which row's tensor goes to which row, found by walking through forks, FIFOs and gearboxes."""
    design = request.design
    first_layer = len(request.inputs)
    owner = {
        node: first_layer + index
        for index, layer in enumerate(request.layers)
        for node in layer.nodes
    }
    origin = {channel: index for index, channel in enumerate(design.inputs)}
    links: dict[tuple[int, int, int], int] = {}
    for node in design.nodes:
        if node.name not in owner:
            continue
        for port, channel in enumerate(node.inputs):
            start, depth = _trace(design, channel, owner, origin, request.fifo_depths)
            if start != owner[node.name]:
                links[(start, owner[node.name], port)] = depth
    first_output = first_layer + len(request.layers)
    for index, channel in enumerate(design.outputs):
        start, depth = _trace(design, channel, owner, origin, request.fifo_depths)
        links[(start, first_output + index, 0)] = depth
    return [Link(start, end, depth, port) for (start, end, port), depth in sorted(links.items())]


def _trace(
    design: Design,
    channel: str,
    owner: Mapping[str, int],
    origin: Mapping[str, int],
    depths: Mapping[str, int],
) -> tuple[int, int]:
    """The row that fills a channel, and the beats that fit into the FIFOs on the way."""
    depth = 0
    while channel not in origin:
        node = design.writers[channel]
        if node.name in owner:
            return owner[node.name], depth
        depth += depths.get(node.name, 0)
        channel = node.inputs[0]
    return origin[channel], depth


def arc_lanes(links: Sequence[Link]) -> dict[Link, int]:
    """A lane on the right for each link that passes over rows; short ones lie inside long ones."""
    taken: list[list[Link]] = []
    lanes = {}
    arcs = [link for link in links if link.end - link.start > 1]
    for link in sorted(arcs, key=lambda item: (item.end - item.start, item.start)):
        lane = 0
        while lane < len(taken) and any(_overlap(link, other) for other in taken[lane]):
            lane += 1
        if lane == len(taken):
            taken.append([])
        taken[lane].append(link)
        lanes[link] = lane
    return lanes


def _overlap(one: Link, other: Link) -> bool:
    return one.start < other.end and other.start < one.end


def _draw_link(link: Link, lane: int | None) -> str:
    start, end = TOP + ROW * link.start, TOP + ROW * link.end
    if lane is None:
        x = BOX_LEFT + 60 + 130 * link.port
        path = f"M{x},{start + BOX_HEIGHT} L{x},{end - 1}"
        line = f'<path class="edge" d="{path}" marker-end="url(#tip)"/>'
        return line + _fifo(x + 12, (start + BOX_HEIGHT + end) // 2 - 1, link.depth)
    left = BOX_LEFT + BOX_WIDTH
    x = left + FIRST_LANE + LANE * lane
    y0, y1 = start + BOX_HEIGHT - 9, end + 9 + 11 * min(link.port, 2)
    path = f"M{left},{y0} L{x - 10},{y0} Q{x},{y0} {x},{y0 + 10} L{x},{y1 - 10} "
    path += f"Q{x},{y1} {x - 10},{y1} L{left + 1},{y1}"
    line = f'<path class="skip" d="{path}" marker-end="url(#tip)"/>'
    return line + _fifo(left + 22, y1, link.depth)


def _fifo(x: int, y: int, depth: int) -> str:
    """A label at the line, if there is a FIFO."""
    if not depth:
        return ""
    label = f"{depth:,}"
    width = 34 + 7 * len(label)
    box = f'<rect class="fifo" x="{x - 8}" y="{y - 8}" width="{width}" height="16" rx="3"/>'
    return box + _text(x - 3, y + 4, f"fifo {label}", "small")


def _draw_row(row: Row, index: int, slowest: int, bottleneck: str) -> list[str]:
    y = TOP + ROW * index
    layer = row.layer
    slow = layer is not None and layer.name == bottleneck
    kind = "port" if layer is None else "slow" if slow else "box"
    parts = [
        f'<rect class="{kind}" x="{BOX_LEFT}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" '
        'rx="5"/>',
        _text(BOX_LEFT + 10, y + 16, _short(row.title, 36), "name"),
        _text(BOX_LEFT + 10, y + 31, _short(row.text, 70), "small"),
    ]
    if layer is not None:
        bar = "slowbar" if layer.cycles == slowest else "bar"
        length = max(1, round(BAR_WIDTH * layer.cycles / slowest))
        x = BOX_LEFT + BOX_WIDTH - BAR_WIDTH - 10
        parts.append(
            f'<rect class="{bar}" x="{x}" y="{y + 5}" width="{length}" height="13" rx="2"/>'
        )
        label = f"{layer.cycles:,} cycles" + (", bottleneck" if slow else "")
        parts.append(_text(x + 4, y + 15, label, "small"))
        if layer.operator:
            parts.append(f"<title>{escape(_short(layer.operator, 200))}</title>")
    return ["<g>", *parts, "</g>"]


def _port_row(port: str, value: str, kind: str, beats: int) -> Row:
    return Row(f"{port}: {value}", f"{kind}, {beats:,} beats a frame")


def _layer_text(layer: LayerRow) -> str:
    parts = [layer.kind]
    if layer.fold is not None:
        parts.append(f"PE {layer.fold.pe} x SIMD {layer.fold.simd}")
    if layer.multipliers:
        parts.append(f"{layer.multipliers} multipliers")
    if layer.ram_bits:
        parts.append(f"{layer.ram_bits / 1024:,.1f} Kbit RAM")
    return ", ".join(parts)


def _summary(request: EmitRequest) -> list[str]:
    rate = request.clock * 1e6 / request.interval
    design = request.design
    return [
        f"one frame every {request.interval:,} cycles: {_rate(rate)} frames/s at "
        f"{request.clock:g} MHz; latency {request.latency:,} cycles",
        f"{design.multipliers:,} multipliers, {design.ram_bits / 1024:,.1f} Kbit of RAM; "
        "bars: cycles of a frame in each layer; FIFOs in beats",
    ]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'


def _short(text: str, longest: int) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
