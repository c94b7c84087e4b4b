"""Residual streams: the channels in which the outputs of several layers are added."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from easypruner.graph.coupling.axes import CONSTANT, Ids, Owner
from easypruner.graph.coupling.components import find_components
from easypruner.graph.coupling.coupling import Coupling

_ADDITIONS = ('add', 'sub', 'rsub')
_TABLE = 'embedding.weight'


def find_streams(
    coupling: Coupling, size: int, makers: Sequence[Owner], readers: Iterable[Owner]
) -> Ids:
    """Return nodes of the units in which the channels of several layers are added.

    The layers of both summands must differ. So neither a positional embedding nor a rotation,
    which adds channels of one layer to others of it, makes a stream. A summand of which all
    channels stay, such as an input, may have none.

    Args:
        coupling: has the edges, and the operations that made them.
        size: the number of nodes.
        makers: the dimensions of weights that make channels.
        readers: the dimensions of parameters that read channels.
    """
    a, b = coupling.edges.arrays()
    adds = np.zeros(coupling.edges.mark() + 1, dtype=bool)
    for calls in coupling.history.calls_of(*_ADDITIONS):
        adds[calls.start : calls.stop] = True
    inner, sums = (a >= 0) & (b >= 0), adds[coupling.edges.numbers()]
    label = find_components(a[inner & ~sums], b[inner & ~sums], size)
    layers = _find_layers(coupling, label, makers, readers)
    one, other = a[inner & sums], b[inner & sums]
    left, right = layers[label[one]], layers[label[other]]
    found = [one[(left > 0) & (right > 0) & (left != right)]]
    texts = coupling.axes.reasons.texts
    constants = [-n - 1 for n, text in enumerate(texts) if text == CONSTANT]
    for nodes, reasons in ((a, b), (b, a)):
        ends = nodes[sums & (nodes >= 0) & (reasons < 0) & ~np.isin(reasons, constants)]
        found.append(ends[layers[label[ends]] > 0])
    return np.concatenate(found)


def _find_layers(
    coupling: Coupling, label: Ids, makers: Sequence[Owner], readers: Iterable[Owner]
) -> Ids:
    """Return for each component a number that is the same for the same layers; 0 if it has none.

    Each layer has a random number, and a component the sum of these. A table of which no layer
    reads the entries, such as biases of the scores of an attention, is not a layer.
    """
    is_read = np.zeros(label.max(initial=-1) + 1, dtype=bool)
    for owner in readers:
        is_read[label[owner.axis.nodes]] = True
    numbers = np.random.default_rng(0).integers(1, 2**40, size=len(makers))
    own = dict(zip((owner.param for owner in makers), numbers.tolist(), strict=True))
    layers = np.zeros(is_read.size, dtype=np.int64)
    for owner in makers:
        units = np.unique(label[owner.axis.nodes])
        is_table = coupling.tally.operands[owner.param] == _TABLE
        layers[units[is_read[units]] if is_table else units] += own[owner.param]
    return layers
