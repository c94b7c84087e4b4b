"""The shipped maps between the names that libraries give to the weights of the same network."""

from __future__ import annotations

from collections.abc import Mapping

Rules = tuple[tuple[str, str], ...]

_END = r'(?=\.|$)'
_BLOCKS = 36
"""The most blocks of a stage, those of a ResNet-152."""


def _whole(pattern: str, replacement: str) -> tuple[str, str]:
    """Return a rule for whole parts of a name, so that it fits names of modules as well."""
    return pattern + _END, replacement


_RESNET = (
    _whole(r'^(conv1|bn1|layer\d+)', r'backbone.\1'),
    _whole(r'^fc', 'head.fc'),
)
# torchvision and timm call the weights of a ResNet alike. timm's deep stems (ResNet-D) and
# mmpretrain's differ in their structure.

_PYCLS_BLOCK = r'^(layer\d+\.\d+)\.'
_PYCLS = (
    _whole(r'^stem\.conv', 'conv1'),
    _whole(r'^stem\.bn', 'bn1'),
    # pycls counts blocks from 1.
    *(_whole(rf'^s(\d+)\.b{n + 1}', rf'layer\1.{n}') for n in range(_BLOCKS)),
    *(
        rule
        for n, layer in enumerate('abc', 1)
        for rule in (
            _whole(rf'{_PYCLS_BLOCK}f\.{layer}_bn', rf'\1.bn{n}'),
            _whole(rf'{_PYCLS_BLOCK}f\.{layer}', rf'\1.conv{n}'),
        )
    ),
    _whole(rf'{_PYCLS_BLOCK}proj', r'\1.downsample.0'),
    _whole(rf'{_PYCLS_BLOCK}bn', r'\1.downsample.1'),
    _whole(r'^head\.fc', 'fc'),
)

MAPS: Mapping[str, Rules] = {
    'torchvision->mmpretrain': _RESNET,
    'timm->mmpretrain': _RESNET,
    'pycls->torchvision': _PYCLS,
    'pycls->mmpretrain': (*_PYCLS, *_RESNET),
}
"""Name -> rules of each shipped map. All are for ResNets; they rename weights and modules."""
