"""Measures the networks and functions of docs/quantization.md: accuracy, size and time."""

from __future__ import annotations

import ast
import contextlib
import copy
import os
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from quantized_page import PAGE
from torch import Tensor, nn

import easypruner
from easypruner.runtimes.timing import Timed, measure
from easypruner.slimming.deploying import runtimes_of

PACKAGES = ('torch', 'torchvision', 'torchao', 'onnxruntime', 'openvino', 'nncf')
"""The packages whose versions are stored with the results."""
SEEDS = (0, 1, 2)
SHARE = 0.5
GRIDS = {
    'round_to=1': dict(round_to=1),
    'round_to=8': dict(round_to=8),
    'round_to=16': dict(round_to=16),
    'default': None,
}
"""Name -> limits of the pruned networks."""
NETWORKS = {'resnet18': 224, 'mobilenet_v2': 224}
"""Network of torchvision -> pixels."""
QUICK_NETWORKS = {'squeezenet1_1': 32}
WIDTHS = (64, 63, 62, 60, 56, 48)
LAYERS = 4
"""The layers in a row whose time is measured for a width."""
CALIBRATION = 8

Run = Callable[[Any], Any]


def accuracies(quick: bool) -> dict[str, dict[str, float]]:
    """Return tool -> unpruned and pruned -> the mean accuracy on the digits in percent.

    Args:
        quick: whether to train for one epoch, with one seed.
    """
    found = [_accuracies(seed, quick) for seed in SEEDS[: 1 if quick else None]]
    return {
        tool: {n: statistics.mean(each[tool][n] for each in found) for n in found[0][tool]}
        for tool in found[0]
    }


def _accuracies(seed: int, quick: bool) -> dict[str, dict[str, float]]:
    with _temporary_folder():
        names = _run_page(seed, quick)
        found: dict[str, dict[str, float]] = {}
        for name in ('full', 'pruned'):
            for tool, run in _quantized(names, name):
                found.setdefault(tool, {})[name] = names['accuracy'](run)
    return found


def _run_page(seed: int, quick: bool) -> dict[str, Any]:
    """Run the code of the page up to the part on runs, and return its variables."""
    names: dict[str, Any] = {'__name__': '__main__'}
    for section, block in page_blocks():
        if section != 'From a run':
            code = block.replace('manual_seed(0)', f'manual_seed({seed})')
            exec(code.replace('EPOCHS = 6', 'EPOCHS = 1') if quick else code, names)
    return names


def _quantized(names: dict[str, Any], name: str) -> Iterator[tuple[str, Run]]:
    """Yield tool -> a function that runs a network of the page after it was quantized."""
    network, images = names[name], names['images'][:256]
    path = easypruner.export(network, images[:1], f'export_{name}').file('OnnxRuntime')
    yield 'float', network
    names['quantize_onnx'](path, images, f'{name}.onnx')
    yield 'ONNX Runtime, int8', names['run_onnx'](f'{name}.onnx')
    names['quantize_openvino'](path, images, f'{name}.xml')
    yield 'OpenVINO and NNCF, int8', names['run_openvino'](f'{name}.xml')
    for tool in ('Int8WeightOnlyConfig', 'Int8DynamicActivationInt8WeightConfig'):
        int8 = copy.deepcopy(network)
        names['quantize_'](int8, names[tool]())
        yield f'torchao, `{tool}`', int8
    int4 = copy.deepcopy(network).bfloat16()
    config = names['PrototypeInt4WeightOnlyConfig'](group_size=names['GROUP'])
    names['quantize_'](int4, config, names['fits'])
    yield 'torchao, int4 where it fits', lambda images: int4(images.bfloat16()).float()


def latencies(quick: bool) -> dict[str, Any]:
    """Return network -> runtime -> variant -> its time and size.

    Args:
        quick: whether to measure a small network few times.
    """
    tools = page_functions()
    networks = QUICK_NETWORKS if quick else NETWORKS
    found = {}
    for name, pixels in networks.items():
        with _temporary_folder():
            found[name] = _latencies(name, pixels, tools, 1 if quick else 40)
    return found


def _latencies(name: str, pixels: int, tools: dict[str, Any], repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    images = torch.rand(CALIBRATION, 3, pixels, pixels)
    files: dict[str, dict[str, Path]] = {'OnnxRuntime': {}, 'OpenVINO': {}}
    for variant, network in _variants(name, images[:1]):
        files['OnnxRuntime'] |= _files_of_onnx(variant, network, images, tools)
        path = files['OnnxRuntime'][f'{variant}, float']
        files['OpenVINO'] |= _files_of_openvino(variant, path, images, tools)
    return {
        runtime: _times_and_sizes(runtime, paths, images[:1], repeats)
        for runtime, paths in files.items()
    }


def _variants(name: str, images: Tensor) -> Iterator[tuple[str, nn.Module]]:
    """Yield the networks: unpruned, and with half the MACs and widths on each grid."""
    network = torchvision.models.get_model(name, weights=None).eval()
    yield 'unpruned', network
    for grid, limits in GRIDS.items():
        slimmed = easypruner.slim(network, images, macs=SHARE, limits=limits, verify=False)
        yield f'pruned, {grid}', slimmed.model.eval()


def _files_of_onnx(
    variant: str, network: nn.Module, images: Tensor, tools: dict[str, Any]
) -> dict[str, Path]:
    path = easypruner.export(network, images[:1], variant).file('OnnxRuntime')
    int8 = Path(f'{variant}.onnx')
    tools['quantize_onnx'](path, images, int8)
    return {f'{variant}, float': path, f'{variant}, int8': int8}


def _files_of_openvino(
    variant: str, path: Path, images: Tensor, tools: dict[str, Any]
) -> dict[str, Path]:
    import openvino

    single, int8 = Path(f'{variant}.float.xml'), Path(f'{variant}.int8.xml')
    openvino.save_model(openvino.Core().read_model(path), single, compress_to_fp16=False)
    tools['quantize_openvino'](path, images, int8)
    return {f'{variant}, float': single, f'{variant}, int8': int8}


def _times_and_sizes(
    runtime: str, paths: dict[str, Path], images: Tensor, repeats: int
) -> dict[str, Any]:
    """Return variant -> time and size; the first one is what the others are compared with."""
    timed = _measure(runtime, list(paths.values()), images, repeats)
    return {
        variant: {
            'ms': round(1e3 * time.seconds.median, 3),
            'ratio': round(time.ratio.median, 4),
            'noise': round(time.ratio.noise, 4),
            'bytes': sum(file.stat().st_size for file in _files(path)),
        }
        for (variant, path), time in zip(paths.items(), timed, strict=True)
    }


def _files(path: Path) -> list[Path]:
    return [path, path.with_suffix('.bin')] if path.suffix == '.xml' else [path]


def _measure(
    runtime: str, paths: list[Path], inputs: Tensor | list[Tensor], repeats: int
) -> tuple[Timed, ...]:
    (built,) = runtimes_of({'type': runtime, 'threads': 1})
    several = inputs if isinstance(inputs, list) else [inputs] * len(paths)
    sessions = [built.load(path) for path in paths]
    passes = [session.bind(each) for session, each in zip(sessions, several, strict=True)]
    return measure(passes, repeats=repeats, clock='cpu')


def width_steps(quick: bool) -> dict[str, Any]:
    """Return kind of layer -> runtime and precision -> width -> its time, for the first as 1.

    Args:
        quick: whether to measure two widths a few times.
    """
    tools = page_functions()
    widths, repeats = (WIDTHS[:2], 1) if quick else (WIDTHS, 200)
    found = {}
    for kind in ('convolution', 'depthwise convolution'):
        with _temporary_folder():
            found[kind] = _width_steps(kind, widths, tools, repeats)
    return found


def _width_steps(
    kind: str, widths: tuple[int, ...], tools: dict[str, Any], repeats: int
) -> dict[str, Any]:
    files: dict[str, list[Path]] = {}
    inputs = [torch.rand(2, width, 28, 28) for width in widths]
    for width, images in zip(widths, inputs, strict=True):
        made = _files_of_onnx(str(width), _row_of_layers(kind, width), images, tools)
        path = made[f'{width}, float']
        both = {
            'OnnxRuntime': made,
            'OpenVINO': _files_of_openvino(str(width), path, images, tools),
        }
        for runtime, entries in both.items():
            for name, file in entries.items():
                files.setdefault(f'{runtime}, {name.rpartition(", ")[2]}', []).append(file)
    found = {}
    for name, paths in files.items():
        first = [images[:1] for images in inputs]
        timed = _measure(name.partition(',')[0], paths, first, repeats)
        found[name] = {str(w): round(t.ratio.median, 3) for w, t in zip(widths, timed, strict=True)}
    return found


def _row_of_layers(kind: str, width: int) -> nn.Module:
    groups = width if kind.startswith('depthwise') else 1
    layers = (nn.Conv2d(width, width, 3, padding=1, groups=groups) for _ in range(LAYERS))
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU()))).eval()


def page_blocks() -> list[tuple[str, str]]:
    """Return (section, code) of each Python block of the page."""
    sections = PAGE.read_text(encoding='utf-8').split('\n## ')
    return [
        (section.partition('\n')[0], code)
        for section in sections
        for code in re.findall(r'```python\n(.*?)```\n', section, re.DOTALL)
    ]


def page_functions() -> dict[str, Any]:
    """Return what the page imports and defines, without running its examples."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    names: dict[str, Any] = {}
    for section, code in page_blocks():
        if section in ('ONNX Runtime', 'OpenVINO'):
            tree = ast.parse(code)
            tree.body = [node for node in tree.body if isinstance(node, kinds)]
            exec(compile(tree, str(PAGE), 'exec'), names)
    return names


@contextlib.contextmanager
def _temporary_folder() -> Iterator[None]:
    """Work in a temporary folder for a block."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
