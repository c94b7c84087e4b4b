"""Building blocks of random networks that take channels apart, move, gate and multiply them."""

from __future__ import annotations

from typing import Any

import einops
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.random_blocks import (
    Block,
    Shape,
    Step,
    block,
    fitted,
    keeps_numbers,
    norm,
    up_to,
)

# Pieces


@block
def chunk_gate(shape: Shape, step: Step) -> nn.Module:
    fit, _ = fitted(shape[0], 2)

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.fit(x)
        a, b = step.pick(
            0,
            lambda: x.chunk(2, 1),
            lambda: x.split(x.shape[1] // 2, 1),
            lambda: x.tensor_split(2, 1),
            lambda: (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]),
            lambda: [x.narrow(1, start, x.shape[1] // 2) for start in (0, x.shape[1] // 2)],
            lambda: x.unflatten(1, (2, -1)).unbind(1),
            lambda: (x[:, ::2], x[:, 1::2]),
            lambda: x.unflatten(1, (-1, 2)).unbind(2),
        )()  # fmt: skip
        return step.pick(1, lambda: a * b.sigmoid(), lambda: torch.cat([b, a], 1), lambda: a)()

    return Block(forward, fit=fit)


@block
def half_branch(shape: Shape, step: Step) -> nn.Module:
    """One part goes through a layer. The parts are thirds or halves."""
    parts = step.pick(0, 2, 3, 4)
    fit, inputs = fitted(shape[0], parts)
    width = inputs // parts

    def forward(self: Any, x: Tensor) -> Tensor:
        first, *rest = self.fit(x).chunk(parts, 1)
        return torch.cat([self.layer(first), *rest], 1)

    return Block(forward, fit=fit, layer=nn.Conv2d(width, width, 3, padding=1))


@keeps_numbers
def unequal_split(shape: Shape, step: Step) -> nn.Module:
    width = step.width
    sizes = [width // 2, width - width // 2 + 1]

    def forward(self: Any, x: Tensor) -> Tensor:
        a, b = self.both(x).split(self.sizes, 1)
        return torch.cat([self.layer(a), b], 1)

    layer = nn.Conv2d(sizes[0], 5, 1)
    return Block(forward, both=nn.Conv2d(shape[0], sum(sizes), 1), layer=layer, sizes=sizes)


@keeps_numbers
def written_in_place(shape: Shape, step: Step) -> nn.Module:
    """A part of the channels is replaced."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.layer(x)
        half = x.shape[1] // 2
        x[:, :half] = step.pick(0, x[:, :half].relu(), x[:, half:], 0.0)
        return x

    return Block(forward, layer=nn.Conv2d(shape[0], up_to(step.width, 2), 1))


@block
def shorter_part(shape: Shape, step: Step) -> nn.Module:
    """Parts of which the last one may be shorter, as ``chunk`` makes them."""

    def forward(self: Any, x: Tensor) -> Tensor:
        *parts, last = self.both(x).chunk(3, 1)
        return torch.cat([step.pick(0, parts[0] * parts[-1], self.layer(parts[-1])), last], 1)

    part = step.width // 2 + 2
    both = nn.Conv2d(shape[0], 3 * part - step.pick(1, 0, 1, 2), 1)
    return Block(forward, both=both, layer=nn.Conv2d(part, part, 1))


@block
def glu(shape: Shape, step: Step) -> nn.Module:
    fit, _ = fitted(shape[0], 2)
    return nn.Sequential(fit, nn.GLU(dim=step.pick(0, 1, -3)))


@block
def repeated(shape: Shape, step: Step) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return step.pick(
            0,
            lambda: x.repeat(1, 2, 1, 1),
            lambda: torch.cat([x, x.flip(1)], 1),
            lambda: x + x.flip(1),
            lambda: x.roll(1, 1),
            lambda: x.roll((1, 1), (2, 3)),
        )()

    return Block(forward)


@keeps_numbers
def expanded(shape: Shape, step: Step) -> nn.Module:
    """The number of repetitions cannot be recognized in a width before the channels are merged."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return step.pick(
            0,
            lambda: x.repeat_interleave(2, dim=1),
            lambda: x[:, None].expand(-1, 2, -1, -1, -1).flatten(1, 2),
            lambda: x[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2),
        )()

    return Block(forward)


# Rearrangements


@block
def shuffle(shape: Shape, step: Step) -> nn.Module:
    groups = step.pick(0, 2, 3)
    fit, _ = fitted(shape[0], groups)

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.fit(x)
        n, c, h, w = x.shape
        return step.pick(
            1,
            lambda: x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w),
            lambda: functional.channel_shuffle(x, groups),
            lambda: einops.rearrange(x, 'b (g c) h w -> b (c g) h w', g=groups),
            lambda: x.view(n, c // groups, groups, h, w).transpose(1, 2).reshape(n, c, h, w),
        )()

    return Block(forward, fit=fit)


def _pixels(pattern: str) -> nn.Module:
    return Block(lambda self, x: einops.rearrange(x, pattern, p=2, q=2))


@block
def pixels(shape: Shape, step: Step) -> nn.Module:
    if step.pick(0, False, True) and shape[1] % 2 == shape[2] % 2 == 0:
        return step.pick(
            1,
            nn.PixelUnshuffle(2),
            _pixels('b c (h p) (w q) -> b (c p q) h w'),
            _pixels('b c (h p) (w q) -> b (p q c) h w'),
            Block(lambda self, x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1)),
        )
    fit, _ = fitted(shape[0], 4)
    shuffled = step.pick(
        1,
        nn.PixelShuffle(2),
        _pixels('b (c p q) h w -> b c (h p) (w q)'),
        _pixels('b (p q c) h w -> b c (h p) (w q)'),
    )
    return nn.Sequential(fit, shuffled)


@block
def unfolded(shape: Shape, step: Step) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        columns = functional.unfold(x, 3, padding=1)
        if step.pick(0, 1, 0):
            return functional.fold(columns, x.shape[2:], 3, padding=1)
        return self.layer(columns.unflatten(2, x.shape[2:]))

    return Block(forward, layer=nn.Conv2d(9 * shape[0], step.width, 1))


@block
def resized(shape: Shape, step: Step) -> nn.Module:
    large, even = shape[1] >= 4, shape[1] % 2 == 0
    options = [
        nn.ReflectionPad2d(1) if shape[1] > 1 else nn.Identity(),
        nn.ZeroPad2d(1) if not large else nn.AdaptiveMaxPool2d(3),
        nn.MaxPool2d(2) if large else nn.Upsample(scale_factor=2),
        nn.AvgPool2d(2) if large and even else nn.Upsample(scale_factor=2, mode='bilinear'),
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.LPPool2d(2, 2) if large else nn.Identity(),
        nn.Upsample(size=5, mode='bicubic'),
        nn.AdaptiveAvgPool2d(1),
    ]
    return options[step.variant % len(options)]


@block
def padded_channels(shape: Shape, step: Step) -> nn.Module:
    return Block(lambda self, x: functional.pad(x, (0, 0, 0, 0, 1, 1)))


@block
def across_channels(shape: Shape, step: Step) -> nn.Module:
    """Operations that treat channels as an extent."""

    def forward(self: Any, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        return step.pick(
            0,
            lambda: functional.avg_pool1d(rows, 3, stride=1, padding=1),
            lambda: functional.adaptive_avg_pool1d(rows, 1),
            lambda: functional.max_pool1d(rows, 2),
            lambda: self.layer(rows.flatten(0, 1)[:, None])[:, 0].unflatten(0, rows.shape[:2]),
            lambda: functional.interpolate(rows, scale_factor=2),
            lambda: functional.pad(rows, (1, 1), mode='replicate'),
            lambda: rows.unfold(2, 2, 1).amax(-1),
            lambda: rows.sort(2).values,
        )().transpose(1, 2).unflatten(2, x.shape[2:])  # fmt: skip

    return Block(forward, layer=nn.Conv1d(1, 1, 3, padding=step.pick(1, 1, 0)))


# Gates


@block
def squeeze_excite(shape: Shape, step: Step) -> nn.Module:
    inputs = shape[0]
    gate = nn.Sequential(nn.Conv2d(inputs, 4, 1), nn.ReLU(), nn.Conv2d(4, inputs, 1), nn.Sigmoid())

    def forward(self: Any, x: Tensor) -> Tensor:
        return x * self.gate(
            step.pick(0, functional.adaptive_avg_pool2d(x, 1), x.mean((2, 3), True), x)
        )

    return Block(forward, gate=gate)


@block
def linear_gate(shape: Shape, step: Step) -> nn.Module:
    inputs = shape[0]

    def forward(self: Any, x: Tensor) -> Tensor:
        gate = self.gate(x.flatten(2).max(2).values)
        gate = step.pick(
            0,
            lambda: gate.sigmoid()[:, :, None, None],
            lambda: gate.view(x.shape[0], -1, 1, 1),
            lambda: gate.softmax(1)[..., None, None].expand_as(x),
        )()
        return x * gate

    return Block(forward, gate=nn.Linear(inputs, inputs))


@block
def spatial_gate(shape: Shape, step: Step) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        both = torch.cat([x.mean(1, True), x.amax(1, keepdim=True)], 1)
        return x * self.gate(both).sigmoid()

    return Block(forward, gate=nn.Conv2d(2, 1, 3, padding=1))


@block
def narrow_convolution_gate(shape: Shape, step: Step) -> nn.Module:
    """A convolution that slides over the channels' means."""

    def forward(self: Any, x: Tensor) -> Tensor:
        gate = self.gate(x.mean((2, 3))[:, None])
        return x * gate[:, 0, :, None, None]

    return Block(forward, gate=nn.Conv1d(1, 1, 3, padding=1))


# Products


@keeps_numbers
def einsum(shape: Shape, step: Step) -> nn.Module:
    """Contractions by einsum. If a width is one, torch runs other operations."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return step.pick(
            0,
            lambda: torch.einsum('bchw,cd->bdhw', x, self.weight),
            lambda: torch.einsum('dc,bchw->bdhw', self.weight.T, x),
            lambda: torch.einsum('bchw,bc->bchw', x, x.mean((2, 3))),
            lambda: torch.einsum('bchw,bdhw->bcdh', x, x @ self.square).flatten(2)[..., None],
            lambda: einops.einsum(x, self.weight, 'b c h w, c d -> b d h w'),
        )()

    square = nn.Parameter(torch.randn(shape[2], shape[2]))
    weight = nn.Parameter(torch.randn(shape[0], step.width) / 4)
    return Block(forward, weight=weight, square=square)


@keeps_numbers
def outer_product(shape: Shape, step: Step) -> nn.Module:
    """Two widths are multiplied and merged into one, of which some channels may be picked."""

    def forward(self: Any, x: Tensor) -> Tensor:
        both = self.a(x)[:, :, None] * self.b(x)[:, None]
        return step.pick(
            0,
            lambda: both.flatten(1, 2),
            lambda: both.sum(1),
            lambda: both.mean(2),
            lambda: both.flatten(1, 2)[:, torch.tensor([0, 4, 7, 11])],
            lambda: both.flatten(1, 2)[:, 1:9],
        )()

    return Block(forward, a=nn.Conv2d(shape[0], 4, 1), b=nn.Conv2d(shape[0], 3, 1))


@block
def channel_attention(shape: Shape, step: Step) -> nn.Module:
    inputs = shape[0]

    def forward(self: Any, x: Tensor) -> Tensor:
        q, k, v = (part.flatten(2) for part in self.qkv(x).chunk(3, 1))
        mixed = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return self.project(mixed.unflatten(2, x.shape[2:]))

    return Block(forward, qkv=nn.Conv2d(inputs, 3 * step.width, 1),
                 project=nn.Conv2d(step.width, step.width, 1))  # fmt: skip


# Shared layers


@block
def used_twice(shape: Shape, step: Step) -> nn.Module:
    inputs = shape[0]
    layer = nn.Sequential(nn.Conv2d(inputs, inputs, 3, padding=1), norm(inputs, shape, step, 1))

    def forward(self: Any, x: Tensor) -> Tensor:
        once = self.layer(x)
        twice = self.layer(once)
        return step.pick(0, twice, torch.cat([once, twice], 1))

    return Block(forward, layer=layer)


@block
def tied(shape: Shape, step: Step) -> nn.Module:
    first = nn.Conv2d(shape[0], step.width, 1)
    back = nn.ConvTranspose2d(step.width, shape[0], 1)
    back.weight = first.weight

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.back(self.first(x).relu())

    return Block(forward, first=first, back=back)
