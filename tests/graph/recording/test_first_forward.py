"""A trace leaves a network as it was, whatever the network's first forward pass changes."""

from __future__ import annotations

import functools
import random
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import easypruner


class Net(nn.Module):
    """Two convolutions; a subclass says what the first forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.change(self.first(x).relu()))

    def change(self, y: Tensor) -> Tensor:
        raise NotImplementedError


KINDS: dict[str, type[Net]] = {}


def kind(cls: type[Net]) -> type[Net]:
    KINDS[cls.__name__] = cls
    return cls


@kind
class Hooks(Net):
    ready = False

    def change(self, y: Tensor) -> Tensor:
        if not self.ready:
            self.last.register_forward_hook(lambda module, inputs, output: output * 2)
            self.ready = True
        return y


@kind
class HooksBehindAFlagOfTheClass(Net):
    ready = False

    def change(self, y: Tensor) -> Tensor:
        if not type(self).ready:
            self.last.register_forward_hook(lambda module, inputs, output: output * 2)
            type(self).ready = True
        return y


@kind
class PatchedClass(Net):
    patched = False

    def change(self, y: Tensor) -> Tensor:
        cls = type(self)
        if not cls.patched:
            change = cls.change
            cls.change = lambda self, y: change(self, y) * 2  # type: ignore[assignment,method-assign]
            cls.patched = True
        return y


@kind
class HooksOfAModuleInAList(Net):
    def __init__(self) -> None:
        super().__init__()
        self.others = [nn.Identity()]

    def change(self, y: Tensor) -> Tensor:
        self.others[0].register_forward_hook(lambda module, inputs, output: output * 2)
        self.others[0].eval()
        return self.others[0](y)


@kind
class Buffer(Net):
    def change(self, y: Tensor) -> Tensor:
        if not hasattr(self, 'count'):
            self.register_buffer('count', torch.ones(1, dtype=y.dtype), persistent=False)
        self.count += 1
        return y * self.count


@kind
class Submodule(Net):
    def change(self, y: Tensor) -> Tensor:
        if not hasattr(self, 'extra'):
            self.extra = nn.Dropout(0.5)
        return self.extra(y)


@kind
class OtherForward(Net):
    def change(self, y: Tensor) -> Tensor:
        self.forward = lambda x: self.last(self.first(x))
        return y * 3


@kind
class OtherClass(Net):
    def change(self, y: Tensor) -> Tensor:
        if not parametrize.is_parametrized(self.last):
            parametrize.register_parametrization(self.last, 'bias', nn.Tanh())
        return y


@kind
class DeletedAttribute(Net):
    def __init__(self) -> None:
        super().__init__()
        self.once = 3.0

    def change(self, y: Tensor) -> Tensor:
        return y * vars(self).pop('once', 1.0)


class Helper:
    __slots__ = ('seen', 'steps')

    def __init__(self) -> None:
        self.steps, self.seen = 0, set[int]()


class Options:
    def __init__(self) -> None:
        self.scale, self.helper = 1.0, Helper()


@kind
class OtherObjects(Net):
    def __init__(self) -> None:
        super().__init__()
        self.options = Options()

    def change(self, y: Tensor) -> Tensor:
        self.options.scale += 1
        self.options.helper.steps += 1
        self.options.helper.seen.add(self.options.helper.steps)
        return y * self.options.scale + len(self.options.helper.seen)


@kind
class Containers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.nested, self.queue = {'a': [1.0]}, deque([1.0], maxlen=3)
        self.counts, self.pair = defaultdict(int), ([1],)

    def change(self, y: Tensor) -> Tensor:
        self.nested['a'].append(2.0)
        self.queue.append(3.0)
        self.counts['calls'] += 1
        self.pair[0].append(1)
        return (
            y * sum(self.nested['a']) + sum(self.queue) + self.counts['calls'] + len(self.pair[0])
        )


@kind
class CacheOfTheClass(Net):
    cache: ClassVar[dict[Any, Tensor]] = {}

    def change(self, y: Tensor) -> Tensor:
        if 'table' not in self.cache:
            self.cache['table'] = torch.ones(y.shape[-1], dtype=y.dtype, device=y.device)
        return y + self.cache['table']


TABLES: dict[str, Tensor] = {}


class Grid:
    table: Tensor | None = None


@kind
class CachesOfTheFile(Net):
    def change(self, y: Tensor) -> Tensor:
        if 'table' not in TABLES:
            TABLES['table'] = torch.ones(y.shape[-1], dtype=y.dtype, device=y.device)
        if Grid.table is None:
            Grid.table = TABLES['table'] * 2
        return y + TABLES['table'] * Grid.table


LAST: dict[str, Any] = {}


@functools.cache
def make_table(size: int) -> Tensor:
    return torch.ones(size, **LAST)


@kind
class CachedFunction(Net):
    def change(self, y: Tensor) -> Tensor:
        LAST.update(dtype=y.dtype, device=y.device)
        return y + make_table(y.shape[-1])


def cached(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Cache the results of a function, unless code is compiled, as libraries do."""
    remembering = functools.lru_cache(maxsize=8)(function)

    @functools.wraps(function)
    def wrapper(*args: Any) -> Tensor:
        return function(*args) if torch.compiler.is_compiling() else remembering(*args)

    return wrapper


@kind
class CachedMethods(Net):
    def __init__(self) -> None:
        super().__init__()
        self.make_third = functools.lru_cache(lambda size: torch.ones(size, **LAST))

    @staticmethod
    @functools.lru_cache
    def make_first(size: int) -> Tensor:
        return torch.ones(size, **LAST)

    @staticmethod
    @cached
    def make_second(size: int) -> Tensor:
        return torch.ones(size, **LAST)

    def change(self, y: Tensor) -> Tensor:
        LAST.update(dtype=y.dtype, device=y.device)
        size = y.shape[-1]
        return y + self.make_first(size) + self.make_second(size) + self.make_third(size)


def remember(y: Tensor, known: dict[str, Tensor] = {}) -> Tensor:  # noqa: B006 - as people do
    if 'table' not in known:
        known['table'] = torch.ones(y.shape[-1], dtype=y.dtype, device=y.device)
    return known['table']


@kind
class CacheOfAFunction(Net):
    def change(self, y: Tensor) -> Tensor:
        if not hasattr(remember, 'factor'):
            remember.factor = y.new_ones(1)  # type: ignore[attr-defined]
        return y + remember(y) * remember.factor  # type: ignore[attr-defined]


@kind
class RandomNumbers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)
        self.numpy, self.python = np.random.default_rng(3), random.Random(3)

    def change(self, y: Tensor) -> Tensor:
        noise = torch.rand(y.shape[-1], dtype=y.dtype, generator=self.generator)
        noise = noise + torch.rand(y.shape[-1], dtype=y.dtype)
        other = self.numpy.random() + self.python.random() + random.random()
        return y + noise.to(y.device) + other + float(np.random.rand())  # noqa: NPY002


@kind
class PlainTensor(Net):
    def __init__(self) -> None:
        super().__init__()
        self.steps = [torch.zeros(1)]

    def change(self, y: Tensor) -> Tensor:
        self.steps[0] += 1
        return y + self.steps[0]


@kind
class GlobalHook(Net):
    handle: Any = None

    def change(self, y: Tensor) -> Tensor:
        if self.handle is None:
            self.handle = nn.modules.module.register_module_forward_hook(_double)
        return y


def _double(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * 2


def run(
    build: Callable[[], nn.Module], before: Callable[[nn.Module, Tensor], object]
) -> list[Tensor]:
    """Return the outputs of two forward passes of a new network after a call of a function."""
    states = {cls: dict(vars(cls)) for cls in (*KINDS.values(), Grid)}
    hooks = dict(nn.modules.module._global_forward_hooks)
    TABLES.clear(), CacheOfTheClass.cache.clear(), make_table.cache_clear()
    vars(remember).clear(), remember.__defaults__[0].clear()  # type: ignore[index]
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    model, images = build().eval(), torch.ones(1, 3, 8, 8)
    try:
        before(model, images)
        with torch.no_grad():
            return [model(images) for _ in range(2)]
    finally:
        nn.modules.module._global_forward_hooks.clear()
        nn.modules.module._global_forward_hooks.update(hooks)
        for cls, state in states.items():
            for name in vars(cls).keys() - state.keys():
                delattr(cls, name)
            for name, value in state.items():
                if vars(cls)[name] is not value:
                    setattr(cls, name, value)


def trace(model: nn.Module, images: Tensor) -> None:
    assert easypruner.trace(model, images).groups['first'].size == 8


def verify(model: nn.Module, images: Tensor) -> None:
    """Compare copies in double precision, whose tables a network in single precision cannot use."""
    easypruner.verify(model, {'first': torch.arange(8) < 5}, images)


@pytest.mark.parametrize('before', [trace, verify])
@pytest.mark.parametrize('name', KINDS)
def test_a_network_does_the_same_afterwards(
    name: str, before: Callable[[nn.Module, Tensor], object]
) -> None:
    expected = run(KINDS[name], lambda model, images: None)
    got = run(KINDS[name], before)
    assert all(map(torch.equal, expected, got))
