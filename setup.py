"""Build and installation of EasyPruner."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from setuptools import Command, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PLUGINS = 'easypruner_plugins'
CONFIGS = 'easypruner_configs'
INDEX = 'model-index.yml'

# Upper bounds exclude series that were not tested. nn.RMSNorm needs torch 2.4.
REQUIREMENTS = [
    'torch>=2.4,<2.15',
    'torchvision>=0.19,<0.30',
    'mmengine>=0.10.7,<0.11',
    'mmcv-lite>=2.2,<2.3',
    'mmpretrain>=1.2,<1.3',
    'pluggy>=1.5,<2',
    'numpy>=1.26,<3',
    'scipy>=1.11.4,<2',
    'scikit-learn>=1.4,<2',
    'safetensors>=0.4.4,<1',
    'rich>=13.4,<16',
    'matplotlib>=3.8,<4',
]
TEST = ['pytest>=8,<10', 'pytest-xdist>=3.6.1,<4', 'hypothesis>=6.100,<7', 'setuptools>=70.1']
TRAINERS = {
    'lightning': ['lightning>=2.4,<3'],
    'accelerate': ['accelerate>=1,<2'],
    'transformers': ['transformers>=4.46,<6', 'accelerate>=1,<2'],
}
EXECUTORS = {'submitit': ['submitit>=1.5,<2'], 'ray': ['ray>=2.40,<3']}
OPTUNA = ['optuna>=4,<6']
# They are not among the packages for development: Ultralytics is under the AGPL.
LIBRARIES = {'ultralytics': ['ultralytics>=8.4,<8.5'], 'peft': ['peft>=0.21,<0.22']}
ONNX = ['onnx>=1.23,<2', 'onnxscript>=0.7,<0.8']
# The lowest version of each is one that was tested, except that of TensorRT, which needs a GPU.
RUNTIMES = {
    'onnx': [*ONNX, 'onnxruntime>=1.32,<2'],
    'openvino': ['openvino>=2026.4,<2027'],
    'ncnn': ['ncnn>=1.0.20261020,<2', 'pnnx>=20261020,<20280000'],
    'executorch': ['executorch>=1.5,<1.6'],
    'tensorrt': [*ONNX, 'tensorrt>=10,<11'],
}
TENSORBOARD = ['tensorboard>=2.14,<3']
DOCS = ['mkdocs>=1.6,<2', 'mkdocs-material>=9.6,<10', 'mkdocstrings[python]>=1,<2']
EXTRAS = {
    **TRAINERS,
    **LIBRARIES,
    **EXECUTORS,
    'optuna': OPTUNA,
    'test': TEST,
    'docs': DOCS,
    'tensorboard': TENSORBOARD,
    'dev': [
        *TEST,
        *DOCS,
        *TENSORBOARD,
        'ruff>=0.17,<0.18',
        'mypy>=2.4,<2.5',
        'import-linter>=2.5,<3',
        'pre-commit>=4,<5',
        'codespell>=2.4,<2.5',
        'mdformat>=1,<1.1',
        'mdformat-gfm>=1,<1.1',
        # The tests of their optimizers are skipped without them.
        'timm>=1,<2',
        'schedulefree>=1.4,<2',
        'prodigyopt>=1.1,<2',
        'pytorch_optimizer>=4.1,<5',
        # The tests of their loops are skipped without them.
        *(requirement for group in TRAINERS.values() for requirement in group),
        # The tests of searches are skipped without it.
        *OPTUNA,
        # The tests of their runtimes are skipped without them.
        *(requirement for name in ('onnx', 'openvino', 'ncnn') for requirement in RUNTIMES[name]),
    ],
    'bench': ['torch-pruning==1.6.1', 'mlxtend>=0.23,<1', 'timm>=1,<2', 'schedulefree>=1.4,<2'],
    **RUNTIMES,
    'pitch': [*RUNTIMES['onnx'], 'torchcrepe>=0.0.24,<0.1'],
    'int8': [*RUNTIMES['onnx'], *RUNTIMES['openvino'], 'nncf>=3.4,<4', 'torchao>=0.18,<0.19'],
}


class Develop(Command):
    """An editable install by pip's current method.

    Old versions of pip, such as that of Python 3.10, run ``setup.py develop``. That command only
    adds the checkout to the path, so Python does not find easypruner_plugins in plugins/.
    """

    user_options: ClassVar = [('no-deps', None, 'do not install dependencies')]
    boolean_options: ClassVar = ['no-deps']

    def initialize_options(self) -> None:
        self.no_deps = False

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        command = [sys.executable, '-m', 'pip', 'install', '--use-pep517', '--editable', str(ROOT)]
        subprocess.check_call([*command, *(['--no-deps'] if self.no_deps else [])])


class BuildPy(build_py):
    """Copies configs, tools and their index into easypruner/.mim, where OpenMMLab's mim looks.

    MMEngine finds them there as well: ``_base_ = 'easypruner::masksparsity_r50_in1k.py'``.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / 'easypruner' / '.mim'
        folder.mkdir(parents=True, exist_ok=True)
        for name in ('configs', 'tools'):
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns('__pycache__')
                shutil.copytree(ROOT / name, folder / name, ignore=ignored, dirs_exist_ok=True)
        if (ROOT / INDEX).is_file():
            shutil.copy(ROOT / INDEX, folder / INDEX)


def version() -> str:
    """Return the version in easypruner/base/versions.py."""
    text = (ROOT / 'easypruner' / 'base' / 'versions.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)
    if match is None:
        raise RuntimeError('easypruner/base/versions.py does not define __version__')
    return match[1]


def built_in_plugins() -> list[str]:
    """Return an entry point for each file in plugins/."""
    names = sorted(path.stem for path in (ROOT / 'plugins').glob('[!_]*.py'))
    return [f'{name} = {PLUGINS}.{name}' for name in names]


def readme() -> str:
    """Return the README as the long description; an empty string if there is no README."""
    path = ROOT / 'README.md'
    return path.read_text(encoding='utf-8') if path.is_file() else ''


setup(
    name='easypruner',
    version=version(),
    description='Prune channels of PyTorch networks with MaskSparsity or your own method',
    long_description=readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10,<3.14',
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    packages=[*find_packages(include=['easypruner', 'easypruner.*']), PLUGINS, CONFIGS],
    package_dir={PLUGINS: 'plugins', CONFIGS: 'configs'},
    package_data={
        'easypruner': ['py.typed', 'cli/templates/*.txt'],
        CONFIGS: ['*.py', '**/*.py', '**/*.yml'],
    },
    zip_safe=False,
    entry_points={
        'console_scripts': ['easypruner = easypruner.cli.main:main'],
        'easypruner': built_in_plugins(),
    },
    cmdclass={'develop': Develop, 'build_py': BuildPy},
    keywords=['pruning', 'channel pruning', 'structured pruning', 'sparsity', 'compression'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3 :: Only',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
)
