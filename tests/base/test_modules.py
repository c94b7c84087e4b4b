"""A copy of a module has the same outputs and shares no memory with it; evaluation mode."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.base.modules import copy_of, evaluating
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain


class Remembering(nn.Module):
    """Stores its outputs, with their gradient history, in several attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer('mean', torch.zeros(3))
        self.last: Tensor | None = None
        self.steps: list[dict[str, tuple[Tensor, ...]]] = []

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        self.last = out
        self.mean = out.mean(dim=0)
        self.steps.append({'out': (out, x)})
        return out


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)
        return nn.utils.weight_norm(layer)


def memory(model: nn.Module) -> set[int]:
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    return {tensor.data_ptr() for tensor in tensors}


def test_the_older_weight_norm_after_a_training_pass() -> None:
    model = nn.Sequential(old_weight_norm(nn.Conv2d(3, 4, 3, bias=False)), nn.BatchNorm2d(4))
    model.train()(example_inputs()).sum().backward()
    twin = copy_of(model)
    assert memory(model).isdisjoint(memory(twin))
    assert model[0].weight.grad_fn is not None, 'what it holds is left as it was'
    with torch.no_grad():
        twin[0].weight_g.mul_(2)
    assert torch.equal(twin[0](example_inputs()), 2 * model[0](example_inputs()))


def test_shared_objects_are_copied_once() -> None:
    model = Remembering()
    model(torch.ones(2, 4))
    twin = copy_of(model)
    assert torch.equal(twin.last, model.last) and not twin.last.requires_grad
    assert twin.steps[0]['out'][0] is twin.last and twin.last is not model.last
    assert torch.equal(twin.mean, model.mean) and twin.mean is not model.mean
    assert twin.layer.weight.requires_grad


@pytest.mark.parametrize('training', [True, False])
def test_all_else_equals_a_deepcopy(training: bool) -> None:
    model = randomized_network(Plain).train(training)
    model.head.bias = None
    model.body[0][0].weight.requires_grad = False
    twin = copy_of(model)
    assert type(twin) is Plain and twin.training == training
    assert [p.requires_grad for p in twin.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    assert memory(model).isdisjoint(memory(twin))
    assert torch.equal(twin.eval()(example_inputs()), model.eval()(example_inputs()))


class Hooked(nn.Module):
    """Its functions refer to the network and to what it keeps, not to the module of the hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.randn(6))
        self.kept = kept = {}
        scaled = lambda x: x * self.scale  # noqa: E731
        self.first.register_forward_hook(lambda module, args, out: scaled(out))
        self.first.register_forward_hook(lambda module, args, out: kept.update(first=out))
        self.second.register_forward_pre_hook(
            lambda module, args, own=self: (args[0] + own.bias(),)
        )
        self.bias = lambda: self.scale.mean()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.kept.clear()
        return self.second(self.first(x)), self.kept['first'].sum(1)


def test_functions_of_a_copy_refer_to_the_copy() -> None:
    model, x = Hooked(), torch.randn(5, 4)
    twin = copy_of(model)
    expected = [out.clone() for out in model(x)]
    with torch.no_grad():
        model.scale.zero_()
    model.kept.clear()
    assert all(torch.equal(a, b) for a, b in zip(twin(x), expected, strict=True))
    assert not model.kept
    slimmed = easypruner.slim(Hooked(), x, params=0.6, source='L1Norm').model
    assert slimmed.first.out_features < 6 and len(slimmed(x)) == 2


def test_a_function_that_refers_to_nothing_in_the_network_stays_the_same() -> None:
    seen: list[Tensor] = []
    model = nn.Sequential(nn.Linear(4, 6))

    def hook(module: nn.Module, args: object, out: Tensor) -> None:
        seen.append(out) if hook else None  # refers to itself

    model[0].register_forward_hook(hook)
    copy_of(model)(torch.zeros(2, 4))
    assert len(seen) == 1


class Gathering(nn.Module):
    """Gathers its biases for evaluation in ``train()``, as the attentions of LeViT do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.biases = nn.Parameter(torch.randn(2))
        self.register_buffer('index', torch.tensor([0, 1, 1, 0]), persistent=False)

    @torch.no_grad()
    def train(self, mode: bool = True) -> Gathering:
        super().train(mode)
        if mode and hasattr(self, 'gathered'):
            del self.gathered
        else:
            self.gathered = self.biases[self.index]
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + (self.biases[self.index] if self.training else self.gathered)


def test_what_evaluation_needs_from_train_is_not_missing() -> None:
    model, x = nn.Sequential(Gathering(), nn.Linear(4, 2)), torch.randn(5, 3)
    expected = copy.deepcopy(model).eval()(x)
    with evaluating(model):
        assert torch.equal(model(x), expected)
    assert [module.training for module in model.modules()] == [True] * 4
    assert not hasattr(model[0], 'gathered')
    assert easypruner.trace(model, x).frozen
    with evaluating(model.eval()):
        assert torch.equal(model(x), expected)
