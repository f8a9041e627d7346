"""The layers of random networks: each adds a few nodes behind one value."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.random_networks import Network, TooLarge

Layer = Callable[[Network, str], None]

ACTIVATIONS = (
    *("Relu", "Relu", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "Tanh"),
    *("Elu", "Softplus", "HardSwish", "silu", "bounds", "Neg"),
)


def _sizes(net: Network, x: str) -> tuple[int, ...]:
    return net.shapes[x][2:]


def conv(net: Network, x: str) -> None:
    rng, channels, sizes = net.rng, net.shapes[x][1], _sizes(net, x)
    divisors = [d for d in range(1, channels + 1) if channels % d == 0]
    groups = rng.choice((1, 1, 1, channels, rng.choice(divisors)))
    outputs = groups * rng.randint(1, max(1, (20 if net.chance(0.1) else 8) // groups))
    kernel = [rng.randint(1, 4) for _ in sizes]
    dilations = [rng.choice((1, 1, 1, 2)) for _ in sizes]
    begins, ends = ([rng.randint(0, 2) for _ in sizes] for _ in range(2))
    if any(
        size + b + e < (k - 1) * d + 1
        for size, b, e, k, d in zip(sizes, begins, ends, kernel, dilations, strict=True)
    ):
        raise TooLarge
    inputs = [x, net.constant(net.weights(outputs, channels // groups, *kernel))]
    if net.chance(0.7):
        inputs.append(net.constant(net.vector(outputs)))
    padding: dict[str, object] = {"pads": begins + ends}
    if net.chance(0.2):
        padding = {"auto_pad": rng.choice(("SAME_UPPER", "SAME_LOWER"))}
        dilations = [1 for _ in sizes]
    strides = [rng.choice((1, 1, 1, 2, 3)) for _ in sizes]
    net.add("Conv", inputs, strides=strides, dilations=dilations, group=groups, **padding)


def conv_transpose(net: Network, x: str) -> None:
    rng, channels, sizes = net.rng, net.shapes[x][1], _sizes(net, x)
    divisors = [d for d in range(1, channels + 1) if channels % d == 0]
    groups = rng.choice((1, 1, rng.choice(divisors)))
    per_group = rng.randint(1, max(1, 6 // groups))
    kernel = [rng.randint(1, 4) for _ in sizes]
    strides = [rng.randint(1, 3) for _ in sizes]
    begins, ends = ([rng.randint(0, min(1, k - 1)) for k in kernel] for _ in range(2))
    extra = [rng.choice((0, 0, s - 1)) for s in strides]
    spans = zip(sizes, strides, kernel, begins, ends, extra, strict=True)
    if any((n - 1) * s + k - b - e + o < 1 for n, s, k, b, e, o in spans):
        raise TooLarge
    data = net.weights(groups * per_group, channels // groups, *kernel)
    data = data.reshape(groups, per_group, channels // groups, *kernel).swapaxes(1, 2)
    inputs = [x, net.constant(data.reshape(channels, per_group, *kernel))]
    if net.chance(0.7):
        inputs.append(net.constant(net.vector(groups * per_group)))
    net.add(
        "ConvTranspose",
        inputs,
        strides=strides,
        pads=begins + ends,
        output_padding=extra,
        group=groups,
    )


def batch_norm(net: Network, x: str) -> None:
    channels = net.shapes[x][1]
    variance = net.numbers.uniform(0.2, 2, channels)
    if not net.benign and net.chance(0.3):
        variance[0] *= 1e-6
    parameters = (net.gains(channels), net.vector(channels), net.vector(channels), variance)
    net.add("BatchNormalization", [x, *(net.constant(p) for p in parameters)])


def norm(net: Network, x: str) -> None:
    """Instance and group norm, as one node or as torch exports them."""
    rng, shape = net.rng, net.shapes[x]
    channels = shape[1]
    if int(np.prod(shape[2:])) < (4 if net.benign else 2):
        raise TooLarge  # what is left of a single element is rounding noise
    groups = rng.choice([d for d in range(1, channels + 1) if channels % d == 0])
    epsilon = rng.choice((1e-5, 1e-3))
    gain, shift = net.gains(channels), net.vector(channels)
    kind = rng.choice(("instance", "group", "spelled"))
    if kind == "group" and net.opset >= 21:
        inputs = [x, net.constant(gain), net.constant(shift)]
        name = net.add("GroupNormalization", inputs, num_groups=groups, epsilon=epsilon)
        net.shapes[name] = shape  # the inference of function operators does not always say
    elif kind == "instance":
        inputs = [x, net.constant(gain), net.constant(shift)]
        net.add("InstanceNormalization", inputs, epsilon=epsilon)
    else:
        folded = net.add("Reshape", [x, net.constant([0, groups, -1], "int64")])
        ones, zeros = net.constant(np.ones(groups)), net.constant(np.zeros(groups))
        normed = net.add("InstanceNormalization", [folded, ones, zeros], epsilon=epsilon)
        back = net.add("Reshape", [normed, net.constant(shape, "int64")])
        broad = (channels, *([1] * (len(shape) - 2)))
        scaled = net.add("Mul", [back, net.constant(gain.reshape(broad))])
        net.add("Add", [scaled, net.constant(shift.reshape(broad))])


def activation(net: Network, x: str) -> None:
    rng = net.rng
    kind = rng.choice(ACTIVATIONS)
    if kind == "LeakyRelu":
        net.add(kind, [x], alpha=rng.choice((0.01, 0.1, 0.25)))
    elif kind == "PRelu":
        count = rng.choice((1, net.shapes[x][1]))
        slopes = net.numbers.uniform(0 if net.benign else -0.5, 1, count)
        slopes = slopes.reshape(count, *([1] * len(_sizes(net, x)))) if count > 1 else slopes
        net.add(kind, [x, net.constant(slopes)])
    elif kind == "Clip":
        low, high = rng.choice(((0.0, 6.0), (-1.0, 1.0), (0.0, None), (None, 0.7), (0.1, 3.0)))
        ends = ["" if end is None else net.constant(end) for end in (low, high)]
        net.add(kind, [x, *ends])
    elif kind == "bounds":
        low = net.add("Max", [x, net.constant(-0.5)])
        net.add("Min", [low, net.constant(1.5)])
    elif kind == "HardSigmoid":
        net.add(kind, [x], alpha=rng.choice((0.2, 1 / 6)), beta=0.5)
    elif kind == "silu":
        net.add("Mul", [x, net.add("Sigmoid", [x])])
    else:
        net.add(kind, [x])


def pool(net: Network, x: str) -> None:
    rng, sizes = net.rng, _sizes(net, x)
    kernel = [rng.randint(1, min(3, size)) for size in sizes]
    begins, ends = ([rng.randint(0, k // 2) for k in kernel] for _ in range(2))
    strides = [rng.randint(1, 2) for _ in sizes]
    # onnx and onnxruntime disagree on windows that begin beyond the image.
    begun = all(
        -(-(n + b + e - k) // s) * s < n + b
        for n, b, e, k, s in zip(sizes, begins, ends, kernel, strides, strict=True)
    )
    attributes: dict[str, object] = {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": begins + ends,
        "ceil_mode": rng.randint(0, 1) if begun else 0,
    }
    if net.chance(0.5):
        net.add("MaxPool", [x], **attributes)
    else:
        # With both, runtimes disagree on the divisor of windows beyond the padding.
        include = 0 if attributes["ceil_mode"] else rng.randint(0, 1)
        net.add("AveragePool", [x], count_include_pad=include, **attributes)


def global_pool(net: Network, x: str) -> None:
    net.add(net.rng.choice(("GlobalAveragePool", "GlobalMaxPool")), [x])


def resize(net: Network, x: str) -> None:
    rng, sizes = net.rng, _sizes(net, x)
    mode = rng.choice(("nearest", "linear"))
    coordinates = rng.choice(("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"))
    attributes: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        rounding = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        attributes["nearest_mode"] = rng.choice(rounding)
    if net.chance(0.5):
        scales = [1.0, 1.0, *(rng.choice((1.0, 2.0, 2.0, 3.0)) for _ in sizes)]
        net.add("Resize", [x, "", net.constant(scales)], **attributes)
    else:
        target = [*net.shapes[x][:2], *(rng.randint(1, min(16, 3 * size)) for size in sizes)]
        net.add("Resize", [x, "", "", net.constant(target, "int64")], **attributes)


def concat(net: Network, x: str) -> None:
    shape = net.shapes[x]
    axis = net.rng.choice((1, 1, 1, len(shape) - 1))
    fitting = [
        name
        for name, other in net.shapes.items()
        if len(other) == len(shape)
        and all(a == b for i, (a, b) in enumerate(zip(other, shape, strict=True)) if i != axis)
    ]
    others = [net.rng.choice(fitting) for _ in range(net.rng.randint(1, 2))]
    net.add("Concat", [x, *others], axis=axis)


def arithmetic(net: Network, x: str) -> None:
    rng, shape = net.rng, net.shapes[x]
    kind = rng.choice(("Add", "Add", "Sub", "Mul"))
    choice = rng.choice(("twin", "twin", "scalar", "channel", "map"))
    if choice == "twin":
        other = rng.choice(net.twins(x))
        if net.benign and kind == "Sub" and other == x:
            raise TooLarge
    elif choice == "scalar":
        other = net.constant(rng.choice((0.5, -1.5, 2.0, 0.1)))
    elif choice == "channel":
        other = net.constant(net.vector(shape[1], 1.0).reshape(shape[1], *([1] * len(shape[2:]))))
    else:
        other = net.constant(net.vector(int(np.prod(shape[2:])), 1.0).reshape(shape[2:]))
    pair = [x, other]
    if net.chance(0.3):
        pair.reverse()
    net.add(kind, pair)


def divide(net: Network, x: str) -> None:
    """By a constant, or by a value that stays away from 0."""
    if net.chance(0.5):
        data = net.numbers.uniform(0.5, 3, net.shapes[x][1])
        net.add("Div", [x, net.constant(data.reshape(-1, *([1] * len(_sizes(net, x)))))])
        return
    other = net.rng.choice(net.twins(x))
    raised = net.add("Add", [net.add("Sigmoid", [other]), net.constant(0.5)])
    net.add("Div", [x, raised])


def gate(net: Network, x: str) -> None:
    """Squeeze and excite, or the attention map of an attention U-Net."""
    channels = net.shapes[x][1]
    rank = len(_sizes(net, x))
    single = net.chance(0.5)
    source = x if single else net.add("GlobalAveragePool", [x])
    outputs = 1 if single else channels
    weights = net.constant(net.weights(outputs, channels, *([1] * rank)))
    score = net.add("Conv", [source, weights])
    net.add("Mul", [x, net.add(net.rng.choice(("Sigmoid", "HardSigmoid")), [score])])


def pad(net: Network, x: str) -> None:
    rng, shape = net.rng, net.shapes[x]
    mode = rng.choice(("constant", "constant", "edge", "reflect"))
    most = [0, 0, *(min(2, size - 1) if mode == "reflect" else 2 for size in shape[2:])]
    amounts = [rng.randint(0, limit) for limit in most + most]
    inputs = [x, net.constant(amounts, "int64")]
    if mode == "constant" and net.chance(0.6):
        inputs.append(net.constant(rng.choice((0.0, -1.0, 0.5, -300.0))))
    net.add("Pad", inputs, mode=mode)


def cut(net: Network, x: str) -> None:
    rng, shape = net.rng, net.shapes[x]
    axis = rng.randrange(1, len(shape))
    size = shape[axis]
    start = rng.randrange(size)
    if net.chance(0.2):
        parts, ends, step = (start - size, start), (-(1 << 40), -(1 << 40)), -1
        starts, stops = [parts[0]], [ends[0]]
    else:
        starts, stops = [start], [rng.choice((size, 1 << 40, rng.randint(start + 1, size)))]
        step = rng.choice((1, 1, 2))
    inputs = [net.constant(value, "int64") for value in (starts, stops, [axis], [step])]
    net.add("Slice", [x, *inputs])


def split(net: Network, x: str) -> None:
    shape = net.shapes[x]
    axes = [axis for axis in range(1, len(shape)) if shape[axis] > 1]
    if not axes:
        raise TooLarge
    axis = net.rng.choice(axes)
    first = net.rng.randint(1, shape[axis] - 1)
    sizes = net.constant([first, shape[axis] - first], "int64")
    net.add("Split", [x, sizes], outputs=2, axis=axis)


def transpose(net: Network, x: str) -> None:
    axes = list(range(1, len(net.shapes[x])))
    net.rng.shuffle(axes)
    net.add("Transpose", [x], perm=[0, *axes])


def reshape(net: Network, x: str) -> None:
    """Moves a factor from one axis to another."""
    shape = list(net.shapes[x])
    source, target = net.rng.sample(range(1, len(shape)), 2)
    factors = [f for f in range(2, shape[source] + 1) if shape[source] % f == 0]
    if not factors:
        raise TooLarge
    factor = net.rng.choice(factors)
    shape[source] //= factor
    shape[target] *= factor
    net.add("Reshape", [x, net.constant(shape, "int64")])


def reduce_mean(net: Network, x: str) -> None:
    rank = len(net.shapes[x])
    choices = ((1,), (rank - 1,), tuple(range(2, rank)), tuple(range(1, rank)))
    axes = list(net.rng.choice(choices))
    if net.opset >= 18:
        net.add("ReduceMean", [x, net.constant(axes, "int64")], keepdims=1)
    else:
        net.add("ReduceMean", [x], axes=axes, keepdims=1)


def softmax(net: Network, x: str) -> None:
    net.add("Softmax", [x], axis=net.rng.choice((1, 1, len(net.shapes[x]) - 1)))


def depth_to_space(net: Network, x: str) -> None:
    if len(net.shapes[x]) != 4 or net.shapes[x][1] % 4:
        raise TooLarge
    net.add("DepthToSpace", [x], blocksize=2, mode=net.rng.choice(("DCR", "CRD")))


def identity(net: Network, x: str) -> None:
    net.add(net.rng.choice(("Identity", "Dropout")), [x])


def arg_max(net: Network, x: str) -> None:
    axis = net.rng.choice((1, 1, len(net.shapes[x]) - 1))
    net.add("ArgMax", [x], axis=axis, keepdims=net.rng.randint(0, 1))


def dense(net: Network, x: str) -> None:
    """Flatten and Gemm (or MatMul)."""
    flat = net.add("Flatten", [x])
    inner = int(np.prod(net.shapes[x][1:]))
    outputs = net.rng.randint(1, 6)
    data = net.weights(outputs, inner)
    if net.chance(0.5):
        bias = net.constant(net.vector(outputs))
        net.add("Gemm", [flat, net.constant(data), bias], transB=1)
    else:
        net.add("MatMul", [flat, net.constant(data.T)])


def flatten(net: Network, x: str) -> None:
    net.add("Flatten", [x])


BENIGN_LAYERS: tuple[Layer, ...] = (
    (conv,) * 5
    + (activation,) * 5
    + (conv_transpose, conv_transpose, batch_norm, pool, pool, resize, resize, concat, concat)
    + (arithmetic, gate, cut, split, transpose, reshape, depth_to_space, identity, global_pool)
    + (norm,)
)
LAYERS: tuple[Layer, ...] = (
    *BENIGN_LAYERS,
    *(batch_norm, norm, divide, pad, pad, reduce_mean, softmax, arithmetic, gate),
)
ENDS: tuple[Layer, ...] = (dense, flatten, softmax, activation, arg_max, arg_max)
"""Only as last layers: what follows may not take their results."""
