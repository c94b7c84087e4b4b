"""Advice on example inputs with which a forward pass has failed."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils import _pytree

from easypruner.base.describe import describe
from easypruner.base.nested import tensors_in


def advise_inputs(inputs: Any) -> str:
    """Return what to do about example inputs that are no tensors, to be appended; else ''.

    >>> advise_inputs([1, 3, 32, 32])[:46]
    '; the example inputs are a list [an int, an in'
    """
    if callable(inputs) or any(True for _ in tensors_in(inputs)):
        return ''
    leaves = _pytree.tree_leaves(inputs)
    if any(isinstance(leaf, np.ndarray) for leaf in leaves):
        advice = 'make tensors of arrays by torch.from_numpy()'
    elif leaves and all(type(leaf) is int for leaf in leaves):
        shape = ', '.join(map(str, leaves))
        advice = f'if this is a shape, give a tensor of it, such as torch.rand({shape})'
    else:
        advice = 'a tuple or list is several arguments, and a dict is named ones'
    return f'; the example inputs are {describe(inputs)}, without a tensor: {advice}'
