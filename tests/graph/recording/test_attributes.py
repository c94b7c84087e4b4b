"""A snapshot restores the attributes of modules."""

from __future__ import annotations

from collections import OrderedDict

import torch

import easypruner
from easypruner.testing import example_inputs
from easypruner.testing.networks import Residual


def test_modules_of_torch_before_2_5_are_restored() -> None:
    """Their parameters and buffers are in OrderedDicts, also when torch 2.5 loads them."""
    model = Residual()
    for module in model.modules():
        for kind in ('_parameters', '_buffers'):
            module.__dict__[kind] = OrderedDict(module.__dict__[kind])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    easypruner.trace(model, example_inputs())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
