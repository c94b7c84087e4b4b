"""Exports pruned architectures of four libraries to ONNX, and compares ONNX Runtime with torch.

python benchmarks/exports.py [--only PATTERN] [--limit 600] [--again]

Each model is pruned and exported in its own process with a time limit. Results are written to
benchmarks/results/exports.json after each model, and models with a result are not tried again. At
the end, the table of docs/export.md is written from the file.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import re
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from coverage_check import enliven, random_masks
from exports_page import update_page
from models import Entry
from torch import Tensor, nn

import easypruner
from easypruner.base.cache import processor
from easypruner.base.files import write_json
from easypruner.base.nested import map_tensors
from easypruner.errors import EasyPrunerError
from easypruner.graph.recording.tape import call_model

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'exports.json'
SIDE = 64
"""The side of the images, where a network takes images of this size."""
_CONTEXT = multiprocessing.get_context('forkserver')
_PACKAGES = ('torchvision', 'mmpretrain', 'timm', 'transformers', 'onnx', 'onnxruntime')

MODELS = {
    'torchvision': (
        'resnet18', 'resnext50_32x4d', 'mobilenet_v2', 'mobilenet_v3_small', 'efficientnet_b0',
        'regnet_y_400mf', 'densenet121', 'shufflenet_v2_x0_5', 'squeezenet1_1', 'googlenet',
        'convnext_tiny', 'swin_t', 'vit_b_32', 'deeplabv3_mobilenet_v3_large', 'r3d_18',
        'fasterrcnn_mobilenet_v3_large_320_fpn',
    ),
    'mmpretrain': (
        'resnet18_8xb16_cifar10', 'seresnet50_8xb32_in1k', 'repvgg-a0_8xb32_in1k',
        'mobileone-s0_8xb32_in1k', 'tinyvit-5m_3rdparty_in1k', 'conformer-tiny-p16_3rdparty_in1k',
        'mobilevit-xxsmall_3rdparty_in1k', 'poolformer-s12_3rdparty_32xb128_in1k',
    ),
    'timm': (
        'ghostnet_050', 'hrnet_w18_small', 'dla46_c', 'res2net50_14w_8s', 'resnest14d',
        'fastvit_t8', 'levit_128s', 'mixer_s32_224', 'edgenext_xx_small', 'cait_xxs24_224',
        'deit_tiny_patch16_224', 'efficientformer_l1', 'selecsls42', 'coatnet_pico_rw_224',
    ),
    'transformers': (
        'BertForSequenceClassification', 'DistilBertForSequenceClassification',
        'GPT2ForSequenceClassification', 'ResNetForImageClassification',
        'MobileNetV2ForImageClassification', 'ConvNextForImageClassification',
        'ViTForImageClassification', 'SegformerForImageClassification',
    ),
}  # fmt: skip
"""Library -> models of different architectures, mostly their smallest variants."""


@dataclass(frozen=True)
class Result:
    """What became of one model.

    Attributes:
        source: the library.
        name: the model.
        error: the largest difference from torch, relative to the largest value; None if the model
            was not exported.
        reason: why it was not exported.
        dynamic_batch: whether the file takes batches of any size.
        note: why it does not.
        inputs: the shapes of the inputs.
        params: the share of the parameters that is left.
        bytes: the size of the file.
        seconds: the seconds of the export and its check.
    """

    source: str
    name: str
    error: float | None = None
    reason: str = ''
    dynamic_batch: bool = False
    note: str = ''
    inputs: tuple[str, ...] = ()
    params: float = 1.0
    bytes: int = 0
    seconds: float = 0.0


def main() -> None:
    """Export the models without a result, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', default='', help='a regular expression for the names')
    parser.add_argument('--limit', type=float, default=600, help='seconds for one model')
    parser.add_argument('--again', action='store_true', help='repeat models that have a result')
    parser.add_argument('--out', type=Path, default=RESULTS, help='the file of results')
    parser.add_argument('--page', type=Path, default=ROOT / 'docs' / 'export.md')
    args = parser.parse_args()
    content = json.loads(args.out.read_text(encoding='utf-8')) if args.out.is_file() else {}
    known = {(row['source'], row['name']): row for row in content.get('models', [])}
    _CONTEXT.set_forkserver_preload(['easypruner', 'torchvision', 'timm', 'onnxruntime'])
    for source, names in MODELS.items():
        for name in names:
            chosen = re.search(args.only, f'{source} {name}')
            if not chosen or ((source, name) in known and not args.again):
                continue
            known[source, name] = asdict(_in_own_process(Entry(source, name), args.limit))
            print(json.dumps(known[source, name]), flush=True)
            ordered = [known[s, n] for s in MODELS for n in MODELS[s] if (s, n) in known]
            write_json(args.out, {'machine': _machine(), 'models': ordered})
    if args.page.is_file():
        update_page(args.page, json.loads(args.out.read_text(encoding='utf-8')))


def _machine() -> dict[str, str]:
    from importlib.metadata import version

    return {'processor': processor(), **{name: version(name) for name in ('torch', *_PACKAGES)}}


def _in_own_process(entry: Entry, limit: float) -> Result:
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_send, args=(entry, sender))
    process.start()
    sender.close()
    reason = f'not done after {limit:.0f} s'
    try:
        if receiver.poll(limit):
            result: Result = receiver.recv()
            return result
    except EOFError:
        reason = 'the process ended without a result'
    finally:
        process.kill()
        process.join()
    return Result(entry.source, entry.name, reason=reason)


def _send(entry: Entry, sender: Connection) -> None:
    try:
        sender.send(export_pruned(entry))
    except Exception as error:  # a library cannot build the model
        reason = f'{type(error).__name__}: {error}'
        sender.send(Result(entry.source, entry.name, reason=reason))


def export_pruned(entry: Entry) -> Result:
    """Remove a random half of the units of each group, export, and compare."""
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    model, inputs = entry.build()
    model.eval()
    inputs = _small(model, inputs)
    enliven(model, inputs)
    before = sum(parameter.numel() for parameter in model.parameters())
    found: dict[str, Any] = {
        'source': entry.source,
        'name': entry.name,
        'inputs': tuple(str(list(t.shape)) for t in _tensors(inputs)),
    }
    start = time.perf_counter()
    try:
        graph = easypruner.trace(model, inputs)
        easypruner.prune(model, random_masks(graph), graph=graph)
        found['params'] = sum(parameter.numel() for parameter in model.parameters()) / before
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            export = easypruner.export(model, inputs, Path(folder) / 'export', 'OnnxRuntime')
            (file,) = export.files
    except EasyPrunerError as error:
        return Result(**found, reason=str(error), seconds=time.perf_counter() - start)
    return Result(
        **found,
        error=file.error,
        dynamic_batch=file.dynamic_batch,
        note='; '.join(file.notes),
        bytes=file.bytes,
        seconds=time.perf_counter() - start,
    )


def _small(model: nn.Module, inputs: Any) -> Any:
    """Return smaller images if the network takes them, else the usual inputs."""

    def cropped(tensor: Tensor) -> Tensor:
        large = tensor.dim() >= 4 and min(tensor.shape[-2:]) > SIDE
        return tensor[..., :SIDE, :SIDE] if large else tensor

    small = map_tensors(inputs, cropped)
    try:
        with torch.no_grad():
            call_model(copy.deepcopy(model), small)
            easypruner.trace(model, small)
    except Exception:  # any exception of a model
        return inputs
    return small


def _tensors(inputs: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_tensors(inputs, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


if __name__ == '__main__':
    main()
