"""Taylor scores against changes worked out by hand, and by really removing filters."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.ops import Activation, Add, ArgMax, Concat, MaxPool, Sigmoid, Softmax
from qcompile.passes.channel_classes import channel_classes
from qcompile.passes.prune_filters import PruneFilters
from qcompile.passes.reader_errors import GivenScores
from qcompile.passes.remove_channels import ALL_ZERO, remove_channels
from qcompile.sim.executor import Executor
from qcompile.train.taylor import TaylorScores, Units, by_channel, scored_values, taylor_scores
from qcompile.train.taylor_options import TaylorMode, TaylorOf, TaylorOptions
from qcompile.types import Array
from tests.passes.nets import Net
from tests.passes.pruned_nets import attend, attention_net
from tests.train.planted import RELU, SAME, WINDOW, planted, weighted

SUM = TaylorOptions(TaylorOf.OUTPUT, TaylorMode.PLAIN, unit_gradients=False)
"""The gradient of the sum of all outputs, as it is."""
SIZE = 6


def two_layers(seed: int = 0, activation: Activation | None = None) -> Graph:
    """A convolution of five filters, and one that reads them."""
    net = Net(seed, x=(1, 2, SIZE, SIZE))
    first = net.rng.uniform(-1, 1, (5, 2, 3, 3))
    fields = {} if activation is None else {"activation": activation}
    weighted(net, "first", "x", first, pads_begin=(1, 1), pads_end=(1, 1), **fields)
    weighted(net, "last", "first", net.rng.uniform(-1, 1, (3, 5, 2, 2)))
    return net.graph("last")


def images(graph: Graph, count: int, seed: int = 1) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(
            rng.uniform(-1, 1, (count, *graph.types[name].shape[1:])).astype(np.float32)
        )
        for name in graph.inputs
    }


def outputs(graph: Graph, feeds: dict[str, torch.Tensor]) -> Array:
    """Of every image [N, ...]."""
    executor = Executor(graph)
    count = len(next(iter(feeds.values())))
    found = [
        executor.run({name: data[index : index + 1].numpy() for name, data in feeds.items()})
        for index in range(count)
    ]
    return np.concatenate([values[graph.outputs[0]] for values in found])


def without(graph: Graph, name: str, channel: int) -> Graph:
    """The graph without one channel of an operator, and all that goes with it."""
    found = channel_classes(graph).removable
    gone = next(item for item in found if (graph.by_name[name].output, channel) in item)
    return remove_channels(graph, gone, ALL_ZERO)


def run(graph: Graph, feeds: dict[str, torch.Tensor], options: TaylorOptions) -> dict[str, Array]:
    return taylor_scores(graph, [(feeds, None)], options)


def test_products_by_hand() -> None:
    """Outputs are 2 a + 3 relu(b), a = x, b = -x, on the pixels 1 and -2 and on 3 and 1."""
    net = Net(x=(1, 1, 1, 2))
    weighted(net, "a", "x", np.array([1.0]).reshape(1, 1, 1, 1))
    weighted(net, "b", "x", np.array([-1.0]).reshape(1, 1, 1, 1), activation=RELU)
    net.add("both", Concat, "a", "b", axis=1)
    weighted(net, "last", "both", np.array([2.0, 3.0]).reshape(1, 2, 1, 1))
    graph = net.graph("last")
    feeds = {"x": torch.tensor([[1.0, -2.0], [3.0, 1.0]]).reshape(2, 1, 1, 2)}
    # a: 2 * (1 - 2) = -2 and 2 * (3 + 1) = 8; b: 3 * 2 = 6 and 0.
    for mode, a, b in (
        (TaylorMode.PLAIN, 3.0, 3.0),
        (TaylorMode.ABSOLUTE, 5.0, 3.0),
        (TaylorMode.SQUARED, 34.0, 18.0),
    ):
        found = run(graph, feeds, dataclasses.replace(SUM, mode=mode))
        assert {name: scores.tolist() for name, scores in found.items()} == {"a": [a], "b": [b]}


def test_scores_are_the_exact_change_of_linear_networks() -> None:
    graph = two_layers()
    feeds = images(graph, 4)
    before = outputs(graph, feeds)
    plain = run(graph, feeds, SUM)["first"]
    squared = run(graph, feeds, dataclasses.replace(SUM, mode=TaylorMode.SQUARED))["first"]
    for channel in range(5):
        change = (before - outputs(without(graph, "first", channel), feeds)).sum((1, 2, 3))
        np.testing.assert_allclose(plain[channel], abs(change.mean()), 1e-4)
        np.testing.assert_allclose(squared[channel], (change**2).mean(), 1e-4)


def tied_pair(opposed: bool) -> Graph:
    """Two convolutions of three filters that are added up, the second of other or of opposed
    weights, and one that reads the sum."""
    net = Net(7, x=(1, 2, SIZE, SIZE))
    left = net.rng.uniform(-1, 1, (3, 2, 1, 1))
    right = net.rng.uniform(-1, 1, (3, 2, 1, 1))
    right[1] = -left[1] if opposed else right[1]
    weighted(net, "left", "x", left)
    weighted(net, "right", "x", right)
    net.add("sum", Add, "left", "right")
    weighted(net, "last", "sum", net.rng.uniform(-1, 1, (2, 3, 2, 2)))
    return net.graph("last")


@pytest.mark.parametrize("mode", list(TaylorMode))
def test_tied_filters_are_scored_by_what_removing_both_changes(mode: TaylorMode) -> None:
    """The sum comes before magnitudes and squares: filters that cancel each other do nothing."""
    graph = tied_pair(opposed=True)
    feeds = images(graph, 4)
    found = run(graph, feeds, dataclasses.replace(SUM, mode=mode))
    np.testing.assert_array_equal(found["left"], found["right"])
    before = outputs(graph, feeds)
    for channel in range(3):
        change = (before - outputs(without(graph, "sum", channel), feeds)).sum((1, 2, 3))
        expected = {
            TaylorMode.PLAIN: abs(change.mean()),
            TaylorMode.ABSOLUTE: abs(change).mean(),
            TaylorMode.SQUARED: (change**2).mean(),
        }[mode]
        np.testing.assert_allclose(found["left"][channel], expected, 1e-4, 1e-5)
    assert found["left"][1] < 1e-5 < found["left"][[0, 2]].min()
    # One by one they do something.
    alone = run(tied_pair(opposed=False), feeds, dataclasses.replace(SUM, mode=mode))
    assert alone["left"][1] > 1e-3


def test_depthwise_filters_count_with_the_filter_before_them() -> None:
    """Once, not twice: removing both takes away what one of them makes."""
    net = Net(8, x=(1, 2, SIZE, SIZE))
    weighted(net, "wide", "x", net.rng.uniform(-1, 1, (4, 2, 1, 1)))
    weighted(net, "depthwise", "wide", net.rng.uniform(-1, 1, (4, 1, 3, 3)), groups=4, **SAME)
    weighted(net, "last", "depthwise", net.rng.uniform(-1, 1, (2, 4, 1, 1)))
    graph = net.graph("last")
    feeds = images(graph, 3)
    found = run(graph, feeds, SUM)
    np.testing.assert_array_equal(found["wide"], found["depthwise"])
    before = outputs(graph, feeds)
    for channel in range(4):
        change = (before - outputs(without(graph, "wide", channel), feeds)).sum((1, 2, 3))
        np.testing.assert_allclose(found["wide"][channel], abs(change.mean()), 1e-4)


def test_queries_and_keys_are_scored_by_the_queries() -> None:
    """A score is q * (k + r): what a channel adds to it is what the gradient at q multiplies. Of
    heads that go as a whole only the values count."""
    graph = attention_net()
    names = [op.name for op in graph.ops if op.kind == "Conv" and op.name != "out"]
    units = Units.of(graph, names)
    assert units.counted == {"a", "one.q", "one.v", "two.q", "two.v", "three.v", "four.v"}
    net = Net(4, x=(1, 2, SIZE, SIZE))
    graph = net.graph(net.conv("y", attend(net, "a", "x", 3, 2), 1))
    feeds = images(graph, 2)
    step = 1e-3
    changed = dict(graph.constants)
    weights = graph.by_name["a.q"].inputs[1]
    found = taylor_scores(graph, [(feeds, None)], SUM)
    assert found["a.q"].tolist() == found["a.k"].tolist()
    for channel in range(3):
        sums = []
        for factor in (1 - step, 1 + step):
            data = graph.constants[weights].copy()
            data[channel] *= factor
            changed[weights] = data
            sums.append(outputs(dataclasses.replace(graph, constants=changed), feeds).sum())
        slope = (sums[1] - sums[0]) / (2 * step) / 2
        np.testing.assert_allclose(found["a.q"][channel], abs(slope), rtol=0.02, atol=1e-3)


def test_the_activation_is_part_of_what_is_behind() -> None:
    """x is before the activation: one with a slope, gain and shift that differ by channel."""
    spread = Activation(
        (0.5, 0.2, 0.0, 0.1, 1.0), (1.0, -2.0, 3.0, 0.5, 1.5), (0.0, 1.0, 2.0, 3.0, 4.0)
    )
    graph = two_layers(activation=spread)
    feeds = images(graph, 3)
    found = run(graph, feeds, SUM)["first"]
    bare = two_layers(activation=dataclasses.replace(spread, shift=(0.0,)))
    before = outputs(bare, feeds)
    for channel in range(5):
        change = (before - outputs(without(bare, "first", channel), feeds)).sum((1, 2, 3))
        np.testing.assert_allclose(found[channel], abs(change.mean()), 1e-4)


def test_random_directions_measure_the_change_of_all_outputs() -> None:
    """The mean of squares over directions of length 1 is the squared change by output."""
    graph = two_layers()
    feeds = images(graph, 1)
    change = [
        outputs(graph, feeds) - outputs(without(graph, "first", channel), feeds)
        for channel in range(5)
    ]
    many = {name: data.repeat(4000, 1, 1, 1) for name, data in feeds.items()}
    found = run(graph, many, TaylorOptions(batch=500))["first"]
    np.testing.assert_allclose(found, [np.square(item).mean() for item in change], 0.1)


def test_each_image_counts_alike() -> None:
    """Its gradient at the outputs has length 1, whatever the loss says of it."""
    graph = two_layers()
    feeds = images(graph, 6)
    labels = torch.zeros(6, SIZE - 1, SIZE - 1, dtype=torch.int64)
    factors = torch.tensor([1.0, 1e3, 1.0, 1e3, 1.0, 1e3])

    def scored(scaled: bool, unit: bool) -> Array:
        def losses(values: dict[str, torch.Tensor], _: torch.Tensor) -> torch.Tensor:
            each = values["last"].square().sum(dim=(1, 2, 3))
            return (each * factors).sum() if scaled else each.sum()

        options = TaylorOptions(TaylorOf.LOSS, TaylorMode.SQUARED, unit, batch=6)
        batches = [(feeds, labels)]
        return taylor_scores(graph, batches, options, ("last", losses))["first"]  # type: ignore[arg-type]

    np.testing.assert_allclose(scored(True, True), scored(False, True), 1e-3)
    assert (scored(True, False) > 1e5 * scored(False, False) / 2).all()


def test_layers_of_length_one() -> None:
    graph = two_layers()
    feeds = images(graph, 2)
    plain = run(graph, feeds, SUM)["first"]
    unit = run(graph, feeds, dataclasses.replace(SUM, unit_layers=True))["first"]
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain), 1e-6)


@pytest.mark.parametrize("of", [TaylorOf.OUTPUT, TaylorOf.RANDOM])
def test_batches_do_not_matter(of: TaylorOf) -> None:
    graph = two_layers(activation=RELU)
    feeds = images(graph, 5)
    whole = run(graph, feeds, TaylorOptions(of, batch=5))["first"]
    parts = TaylorScores(graph, TaylorOptions(of, batch=5))
    for begin, end in ((0, 2), (2, 5)):
        parts.add({name: data[begin:end] for name, data in feeds.items()})
    if of is TaylorOf.OUTPUT:
        np.testing.assert_allclose(parts.scores()["first"], whole, 1e-5)
    again = run(graph, feeds, TaylorOptions(of, batch=5))["first"]
    np.testing.assert_array_equal(again, whole)
    other = run(graph, feeds, TaylorOptions(of, batch=5, seed=1))["first"]
    assert (other != whole).any() == (of is TaylorOf.RANDOM)


@pytest.mark.parametrize("mode", list(TaylorMode))
@pytest.mark.parametrize("of", [TaylorOf.OUTPUT, TaylorOf.RANDOM])
def test_filters_that_do_nothing_come_first(mode: TaylorMode, of: TaylorOf) -> None:
    graph, dead = planted()
    found = run(graph, images(graph, 4), TaylorOptions(of, mode))
    assert set(found) == {"first", "second", "third", "tied"}
    zero = {
        (name, int(index)) for name, item in found.items() for index in np.flatnonzero(item == 0)
    }
    assert zero == dead


def test_pruning_by_scores_removes_them_and_changes_nothing() -> None:
    graph, dead = planted()
    feeds = images(graph, 4)
    importance = GivenScores(by_channel(graph, run(graph, feeds, TaylorOptions())))
    # 'third' and 'tied' go together: four units of channels do nothing.
    pruned = PruneFilters(4 / 18, importance).run(graph)
    assert [pruned.types[name].shape[1] for name in ("first", "second", "third", "tied")] == [
        5,
        4,
        5,
        5,
    ]
    np.testing.assert_allclose(outputs(pruned, feeds), outputs(graph, feeds), 1e-5, 1e-5)
    assert ("third", 5) not in dead


def test_networks_that_take_no_batch() -> None:
    """One image at a time where an operator moves the batch axis."""
    net = Net(5, x=(1, 1, 4, 4))
    weighted(net, "first", "x", net.rng.uniform(-1, 1, (3, 1, 1, 1)), activation=RELU)
    net.add("pool", MaxPool, "first", kernel=(2, 2), **WINDOW | {"strides": (2, 2)})
    weighted(net, "last", "pool", net.rng.uniform(-1, 1, (2, 3, 1, 1)))
    graph = net.graph("last")
    feeds = images(graph, 3)
    batched = TaylorScores(graph, SUM)
    batched.add(feeds)
    single = TaylorScores(graph, SUM)
    single.module.batchable = False
    single.add(feeds)
    np.testing.assert_allclose(single.scores()["first"], batched.scores()["first"], 1e-5)


def test_gradients_start_before_the_decision() -> None:
    net = Net(x=(1, 2, 4, 4))
    net.conv("first", "x", 3)
    net.conv("last", "first", 2)
    net.add("odds", Softmax, "last", axis=1)
    net.add("found", ArgMax, "odds", axis=1, keepdims=True)
    net.conv("other", "first", 1)
    net.add("mark", Sigmoid, "other")
    graph = net.graph("found", "mark")
    assert scored_values(graph) == ("last", "other")


def test_wrong_usage() -> None:
    graph = two_layers()
    with pytest.raises(UsageError, match="at least one image"):
        taylor_scores(graph, [])
    with pytest.raises(UsageError, match="need a loss"):
        TaylorScores(graph, TaylorOptions(TaylorOf.LOSS))
    net = Net(x=(1, 1, 4, 4))
    net.conv("only", "x", 3)
    with pytest.raises(UsageError, match="no filters that can go"):
        TaylorScores(net.graph("only"), SUM)
    with pytest.raises(UsageError, match="no numbers"):
        run(graph, {"x": torch.full((1, 2, SIZE, SIZE), torch.nan)}, SUM)
    with pytest.raises(UsageError, match="--batch: 0 is too small"):
        TaylorOptions(batch=0)
