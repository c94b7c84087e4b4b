"""A ResNet of bottlenecks as pycls builds it: its names, and its order of registration."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

DEPTHS = (3, 4, 6, 3)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.projects = inputs != outputs or stride != 1
        if self.projects:
            self.proj = _conv(inputs, outputs, 1, stride)
            self.bn = nn.BatchNorm2d(outputs)
        layers = OrderedDict(
            a=_conv(inputs, width, 1), a_bn=nn.BatchNorm2d(width), a_relu=nn.ReLU(),
            b=_conv(width, width, 3, stride), b_bn=nn.BatchNorm2d(width), b_relu=nn.ReLU(),
            c=_conv(width, outputs, 1), c_bn=nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.f = nn.Sequential(layers)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        skipped = self.bn(self.proj(x)) if self.projects else x
        y: Tensor = self.relu(skipped + self.f(x))
        return y


class _Head(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


class PyclsResNet(nn.Sequential):
    """The ResNet-50 of pycls with STRIDE_1X1 False, as the released configs set it."""

    def __init__(self, depths: tuple[int, ...] = DEPTHS, classes: int = 1000) -> None:
        super().__init__()
        stem = OrderedDict(
            conv=_conv(3, 64, 7, 2), bn=nn.BatchNorm2d(64), relu=nn.ReLU(),
            pool=nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        self.add_module('stem', nn.Sequential(stem))
        inputs = 64
        for number, depth in enumerate(depths):
            stage = nn.Sequential()
            for block in range(depth):
                width, stride = 64 * 2**number, 2 if number and not block else 1
                stage.add_module(f'b{block + 1}', _Block(inputs, width, stride))
                inputs = 4 * width
            self.add_module(f's{number + 1}', stage)
        self.add_module('head', _Head(inputs, classes))
