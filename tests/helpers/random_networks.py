"""Random small networks: a description drawn by hypothesis, and the network built from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import tests.helpers.random_pieces
import tests.helpers.random_tokens  # noqa: F401  (these register their blocks)
from tests.helpers.random_blocks import BLOCKS, KEEPS_NUMBERS, Block, Step
from tests.helpers.random_transformers import TRANSFORMERS

SIDE = 8
_INPUTS = ('image', 'two images', 'image and words')
_HEADS = ('mean', 'flatten', 'map')
_OUTPUTS = ('tensor', 'tuple', 'dict', 'dataclass')


@dataclass(frozen=True)
class Description:
    """The parts of a random network.

    Attributes:
        steps: its blocks, in order.
        inputs: what its forward is called with.
        head: how the last map becomes scores.
        outputs: what its forward returns.
    """

    steps: tuple[Step, ...]
    inputs: str = 'image'
    head: str = 'mean'
    outputs: str = 'tensor'

    @property
    def keeps_numbers(self) -> bool:
        """Whether some block's code stores widths in Python."""
        return any(step.kind in KEEPS_NUMBERS for step in self.steps)

    def build(self) -> nn.Module:
        """Return the network, seeded, in double precision and evaluation mode."""
        torch.manual_seed(0)
        model = RandomNetwork(self).double()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for layer in norms:
            layer.momentum = None
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.bias, -0.5, 0.5)
        with torch.no_grad():
            model(*self.example_inputs(4))
        return model.eval()

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Return arguments for the network's forward."""
        generator = torch.Generator().manual_seed(7)
        image = torch.randn(batch, 3, SIDE, SIDE, generator=generator).double()
        if self.inputs == 'two images':
            return image, torch.randn(batch, 2, SIDE, SIDE, generator=generator).double()
        if self.inputs == 'image and words':
            return image, torch.randint(10, (batch, 5), generator=generator)
        return (image,)


@dataclass
class Prediction:
    """An output with names."""

    scores: Tensor
    middle: Tensor


class RandomNetwork(nn.Module):
    """The network of a description."""

    def __init__(self, description: Description) -> None:
        super().__init__()
        self._description = description
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.second = {
            'image': lambda: None,
            'two images': lambda: nn.Conv2d(2, 6, 3, padding=1),
            'image and words': lambda: nn.Embedding(10, 6),
        }[description.inputs]()
        self.blocks = nn.ModuleList()
        shapes = [(6, SIDE, SIDE)]
        for step in description.steps:
            module = BLOCKS[step.kind](shapes[-1], step)
            shapes.append(_shape_after(module, shapes[-1]))
            self.blocks.append(module)
        self.middle = nn.Conv2d(shapes[len(shapes) // 2][0], 3, 1)
        self.head = _head(description.head, *shapes[-1])

    def forward(self, x: Tensor, other: Tensor | None = None) -> Any:
        x = self.stem(x)
        if isinstance(self.second, nn.Conv2d):
            x = torch.relu(x + self.second(other))
        elif isinstance(self.second, nn.Embedding):
            x = x * self.second(other).mean(1)[:, :, None, None]
        maps = [x]
        for module in self.blocks:
            maps.append(module(maps[-1]))
        scores, middle = self.head(maps[-1]), self.middle(maps[len(maps) // 2])
        return {
            'tensor': lambda: scores + middle.mean(),
            'tuple': lambda: (scores, [middle, None]),
            'dict': lambda: {'scores': scores, 'more': {'middle': middle}},
            'dataclass': lambda: Prediction(scores, middle),
        }[self._description.outputs]()


def _shape_after(module: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    training = module.training
    with torch.no_grad():
        channels, height, width = module.eval()(torch.zeros(2, *shape)).shape[1:]
    module.train(training)
    return channels, height, width


def _head(kind: str, channels: int, height: int, width: int) -> nn.Module:
    builders: dict[str, Callable[[], nn.Module]] = {
        'mean': lambda: nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)
        ),
        'flatten': lambda: nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 5)),
        'map': lambda: Block(
            lambda self, x: self.layer(x.permute(0, 2, 3, 1)), layer=nn.Linear(channels, 5)
        ),
    }
    return builders[kind]()


@dataclass(frozen=True)
class Task:
    """A network to prune, and how.

    Attributes:
        description: the network.
        options: options of ``trace`` and of ``verify``.
        seed: chooses what is removed.
    """

    description: Description
    options: tuple[tuple[str, Any], ...] = ()
    seed: int = 0


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Draw a network that has heads, experts or modules that change at a first forward."""
    known = descriptions((*TRANSFORMERS, *TRANSFORMERS, *BLOCKS))
    description = draw(known.filter(lambda d: any(s.kind in TRANSFORMERS for s in d.steps)))
    options: dict[str, Any] = {
        'attention': draw(st.sampled_from(('width', 'heads', 'query_heads')))
    }
    if description.outputs == 'dict' and draw(st.booleans()):
        options['outputs'] = 'scores'
    return Task(description, tuple(options.items()), draw(st.integers(0, 2**31)))


@st.composite
def descriptions(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(BLOCKS)) -> Description:
    """Draw a description of two to six blocks."""
    step = st.builds(Step, st.sampled_from(kinds), st.integers(4, 10), st.integers(0, 2**12 - 1))
    return Description(
        steps=tuple(draw(st.lists(step, min_size=2, max_size=6))),
        inputs=draw(st.sampled_from(_INPUTS)),
        head=draw(st.sampled_from(_HEADS)),
        outputs=draw(st.sampled_from(_OUTPUTS)),
    )
