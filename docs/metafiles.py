"""Generates model-index.yml and a metafile.yml for each method, in the layout of OpenMMLab.

Run ``python docs/metafiles.py`` after configs were added or renamed, or docs/digits.md
has changed. ``mim search easypruner`` reads these files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from easypruner.base.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
INDEX = 'model-index.yml'
FOLDER = 'configs/_metafiles_'
METHODS = {
    'agp': ('AGP', ('To prune, or not to prune: exploring the efficacy of pruning for model '
            'compression'), '1710.01878'),
    'compensated': ('Slimming with Compensation', ('Learning Efficient Convolutional Networks '
                    'through Network Slimming'), '1708.06519'),
    'depgraph': ('DepGraph', 'DepGraph: Towards Any Structural Pruning', '2301.12900'),
    'distill': ('Distillation', 'Distilling the Knowledge in a Neural Network', '1503.02531'),
    'eagleeye': ('EagleEye', ('EagleEye: Fast Sub-net Evaluation for Efficient Neural Network '
                 'Pruning'), '2007.02491'),
    'fpgm': ('FPGM', ('Filter Pruning via Geometric Median for Deep Convolutional Neural '
             'Networks Acceleration'), '1811.00250'),
    'greg': ('GReg', 'Neural Pruning via Growing Regularization', '2012.09243'),
    'l1': ('L1 Norm', 'Pruning Filters for Efficient ConvNets', '1608.08710'),
    'masksparsity': ('MaskSparsity', 'Pruning-aware Sparse Regularization for Network Pruning',
                     '2201.06776'),
    'polarization': ('Polarization', ('Neuron-level Structured Pruning using Polarization '
                     'Regularizer'), ''),
    'random': ('Random', '', ''),
    'scratch': ('Scratch', 'Rethinking the Value of Network Pruning', '1810.05270'),
    'sfp': ('Soft Filter Pruning', ('Soft Filter Pruning for Accelerating Deep Convolutional '
            'Neural Networks'), '1808.06866'),
    'slimming': ('Network Slimming', ('Learning Efficient Convolutional Networks through '
                 'Network Slimming'), '1708.06519'),
    'taylor': ('Taylor', 'Importance Estimation for Neural Network Pruning', '1906.10771'),
    'uniform': ('Uniform', '', ''),
}  # fmt: skip
"""First word of a config's name -> the method's name, and title and arXiv number of its paper."""

NETWORKS = {
    'r20': 'ResNet-20', 'r50': 'ResNet-50', 'r56': 'ResNet-56', 'r110': 'ResNet-110',
    'vgg16bn': 'VGG-16-BN', 'vgg6bn': 'VGG-6-BN', 'mobilenetv2': 'MobileNetV2',
}  # fmt: skip
DATA = {
    'digits': 'Digits (scikit-learn)', 'mnist5k_hard': 'MNIST (5,000 images, distorted)',
    'cifar10': 'CIFAR-10', 'in1k': 'ImageNet-1k',
}  # fmt: skip
PAPER = {
    'masksparsity_r50_in1k': {'FLOPs Removed': 51.07, 'Top 1 Accuracy Change': -0.76},
    'masksparsity_r110_cifar10': {'FLOPs Removed': 63.03, 'Parameters Removed': 60.34},
}
"""Config -> what the paper reports for this network, in percent and points."""
_HEAD = '# Written by docs/metafiles.py.\n'
_FROM_PAPER = 'the paper; this config was not trained in full'


def files() -> dict[str, str]:
    """Return path -> text of all files, relative to the checkout."""
    configs = sorted(path.stem for path in (ROOT / 'configs').glob('[!_]*.py'))
    methods = sorted({name.partition('_')[0] for name in configs})
    paths = {method: f'{FOLDER}/{method}/metafile.yml' for method in methods}
    measured = _measured()
    texts = {
        path: _text(_metafile(method, [n for n in configs if n.split('_')[0] == method], measured))
        for method, path in paths.items()
    }
    return {INDEX: _text({'Import': [*paths.values()]}), **texts}


def _text(content: Mapping[str, Any]) -> str:
    return _HEAD + yaml.safe_dump(content, sort_keys=False, width=100, allow_unicode=True)


def _metafile(method: str, configs: list[str], measured: Mapping[str, Any]) -> dict[str, Any]:
    name, title, number = METHODS[method]
    collection: dict[str, Any] = {'Name': name, 'README': 'docs/cookbook.md'}
    if method == 'masksparsity':
        collection['README'] = 'docs/masksparsity.md'
    if title:
        url = {'URL': f'https://arxiv.org/abs/{number}'} if number else {}
        collection['Paper'] = {'Title': title, **url}
    models = [_model(config, name, measured.get(config)) for config in configs]
    return {'Collections': [collection], 'Models': models}


def _model(config: str, collection: str, measured: tuple[str, dict[str, float]] | None) -> Any:
    network = next(word for word in config.split('_') if word in NETWORKS)
    data = next(title for word, title in DATA.items() if f'_{word}' in config)
    metadata = {'Architecture': NETWORKS[network], 'Training Data': data}
    if config in PAPER:
        measured = (_FROM_PAPER, PAPER[config])
    model = {
        'Name': config,
        'In Collection': collection,
        'Config': f'configs/{config}.py',
        'Metadata': metadata,
    }
    if measured is not None:
        metadata['Results From'], metrics = measured
        result = {'Task': 'Image Classification', 'Dataset': data, 'Metrics': metrics}
        model['Results'] = [result]
    return model


def _measured() -> dict[str, tuple[str, dict[str, float]]]:
    """Return config -> where its results are, and the accuracy and MACs after fine-tuning."""
    found = {}
    for cells in _rows('digits.md'):
        config = cells[0].strip('`')
        if config.endswith('_digits'):
            metrics = {'Top 1 Accuracy': _mean(cells[5]), 'MACs Left': _mean(cells[6])}
            found[config] = ('docs/digits.md, mean of 3 seeds', metrics)
    return found


def _rows(page: str) -> list[list[str]]:
    """Return the cells of all table rows of a page of the docs."""
    lines = (ROOT / 'docs' / page).read_text(encoding='utf-8').splitlines()
    return [[c.strip() for c in line.strip('|').split('|')] for line in lines if line[:1] == '|']


def _mean(cell: str) -> float:
    return float(re.split(r'\s*[±%]', cell)[0])


if __name__ == '__main__':
    for path, text in files().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(ROOT / path, text)
