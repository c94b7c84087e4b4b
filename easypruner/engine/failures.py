"""Failures: exceptions of a user's code during a stage, reported with the part that raised them."""

from __future__ import annotations

import contextlib
import errno
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.optim import OptimWrapper

from easypruner.base.disk import disk_problem
from easypruner.base.distributed import is_lost_connection
from easypruner.errors import EasyPrunerError, PluginError
from easypruner.strategies.strategy import Strategy

TRAIN_LOADER, VAL_LOADER = 'train_dataloader', 'val_dataloader'
EVALUATOR, MODEL = 'val_evaluator', 'model'
OPTIMIZER = 'optim_wrapper'
HOOKS = 'hooks'

_LIBRARIES = ('torch', 'numpy', 'scipy')
_OWN = Path(__file__).parents[1]
_DATA = Path(torch.__file__).parent / 'utils' / 'data'
_STANDARD = Path(sysconfig.get_path('stdlib'))
_INSTALLED = frozenset(Path(sysconfig.get_path(name)) for name in ('purelib', 'platlib'))
_DISK = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT})
_MOST_TEXT = 1500
_OF_WRAPPER = ('_clip_grad', 'step', 'zero_grad', 'scale_loss')
"""Methods of MMEngine's OptimWrapper that do not run a network backwards."""
_STAGE = 'stage '
"""The start of what says where an exception was raised."""
_ORIGIN = re.compile(r'File "([^"]+)", line (\d+)')
_DIED = 'exited unexpectedly'
TRACEBACK = '--verbose shows the traceback'
"""The end of a message about an error in code of others."""


@dataclass(frozen=True)
class Failure:
    """An exception of code that is not EasyPruner's.

    Attributes:
        part: the part of the config that it belongs to, such as ``'train_dataloader'``.
        who: the part in words, such as ``'the data loader train_dataloader'``.
        error: the exception.
        location: the file and line that raised it; '' if not known.
        hook: the hook that raised it; None if it was not a hook.
    """

    part: str
    who: str
    error: Exception
    location: str
    hook: object | None = None

    def text(self) -> str:
        """Return who raised what, where, and what to do."""
        raised, location = _own_text(self.error, self.location)
        at = f' ({location})' if location and _DIED not in raised else ''
        return f'{self.who} raised {raised}{at}; {self._advice()}'

    def _advice(self) -> str:
        text = str(self.error)
        if isinstance(self.error, torch.OutOfMemoryError | MemoryError):
            return 'use a smaller batch_size of the data loader'
        if _DIED in text or 'Bus error' in text or 'shared memory' in text:
            return (
                f'a worker often dies because memory or /dev/shm is full; set a lower num_workers '
                f'of {self.part}, or 0, which shows its own error'
            )
        return f'correct it; {TRACEBACK}'


def failure_of(error: Exception) -> Failure | None:
    """Find the part that an exception belongs to; None if it is a bug of EasyPruner.

    Args:
        error: the exception, with its traceback.
    """
    steps = _steps(error)
    frames = [step.frame for step in steps]
    location = _location(steps)
    if any(_DATA in step.file.parents for step in steps):
        part = _loader(frames)
        return Failure(part, f'the data loader {part}', error, location)
    if (isinstance(error, OSError) and error.errno in _DISK) or is_lost_connection(error):
        return None
    owners = [step.owner for step in steps if step.owner != 'library']
    if 'user' not in owners and owners[-1:] in ([], ['easypruner']):
        return None
    hook, method = _hook(frames)
    if isinstance(error, OSError) and _is_of_mmengine(hook) and disk_problem(error):
        # Its own hooks write logs and checkpoints into the work directory.
        return None
    if hook is not None:
        who = f'{method}() of the hook {type(hook).__name__}'
        return Failure(HOOKS, who, error, location, hook)
    if any(_evaluates(step.file) for step in steps):
        return Failure(EVALUATOR, 'the evaluator val_evaluator', error, location)
    part = OPTIMIZER if _is_of_optimizer(frames) else MODEL
    return Failure(part, _in_words(frames), error, location)


@contextlib.contextmanager
def explained(where: Callable[[], str]) -> Iterator[None]:
    """Convert exceptions of a user's code during a block.

    Args:
        where: a function that returns where the block is, such as ``"stage 'train', epoch 2"``.

    Raises:
        EasyPrunerError: a plugin, the data, the evaluator, a hook or the model raised an exception.
        PluginError: a plugin returned something wrong.
    """
    try:
        yield
    except PluginError as error:
        if str(error).startswith(_STAGE):
            raise
        raise PluginError(f'{where()}: {error}') from error
    except EasyPrunerError:
        raise
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise EasyPrunerError(f'{where()}: {failure.text()}') from error


@contextlib.contextmanager
def blaming(who: str, where: Callable[[], str]) -> Iterator[None]:
    """Convert all exceptions of a block that runs one plugin's code.

    Args:
        who: the code in words, such as ``'the regularizer MyPenalty'``.
        where: a function that returns where the block is.

    Raises:
        EasyPrunerError: the code raised an exception.
    """
    try:
        yield
    except EasyPrunerError:
        raise
    except Exception as error:
        failure = Failure('', who, error, _location(_steps(error)))
        raise EasyPrunerError(': '.join(filter(None, [where(), failure.text()]))) from error


def _own_text(error: Exception, location: str) -> tuple[str, str]:
    """Return an exception's text and location. That of a worker process contains a traceback."""
    text = str(error).strip()
    _, found, original = text.partition('Original Traceback')
    if found:
        places = _ORIGIN.findall(original)
        last = original.strip().splitlines()[-1].strip()
        where = [f'{file}, line {line}' for file, line in places if _owner(Path(file)) != 'library']
        return f'{last} (in a worker process)', where[-1] if where else location
    if len(text) > _MOST_TEXT:
        text = text[:_MOST_TEXT] + ' ...'
    return f'{type(error).__name__}: {text}', location


@dataclass(frozen=True)
class _Step:
    """A step of a traceback.

    Attributes:
        frame: the frame.
        file: the file of its code.
        line: the line of the file.
        owner: whose code it is: that of ``'easypruner'``, of a ``'library'``, of another
            ``'installed'`` package, or of the ``'user'``.
    """

    frame: FrameType
    file: Path
    line: int
    owner: str


def _steps(error: BaseException) -> list[_Step]:
    steps = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        steps.append(_Step(frame, file, line, _owner(file)))
    return steps


def _owner(file: Path) -> str:
    if _OWN in file.parents:
        return 'easypruner'
    for folder in _INSTALLED:
        if folder in file.parents:
            package = file.relative_to(folder).parts[0]
            return 'library' if package in _LIBRARIES else 'installed'
    return 'library' if _STANDARD in file.parents or not file.is_absolute() else 'user'


def _location(steps: Sequence[_Step]) -> str:
    """Return the innermost line of code that the user wrote, or else of a package; '' if none."""
    for owner in ('user', 'installed'):
        for step in reversed(steps):
            if step.owner == owner:
                return f'{step.file}, line {step.line}'
    return ''


def _evaluates(file: Path) -> bool:
    return file.parent.name == 'evaluator' or 'evaluation' in file.parts


def _loader(frames: Sequence[FrameType]) -> str:
    """Return the name of the data loader that was read."""
    loops = [type(frame.f_locals.get('self')).__name__ for frame in frames]
    return VAL_LOADER if any('Val' in name for name in loops) else TRAIN_LOADER


def _hook(frames: Sequence[FrameType]) -> tuple[Any, str]:
    """Return the hook of MMEngine's Runner that ran, and its method; None if none did."""
    for frame in reversed(frames):
        if frame.f_code.co_name == 'call_hook' and 'hook' in frame.f_locals:
            hook = frame.f_locals['hook']
            if not type(hook).__module__.startswith('easypruner.'):
                return hook, str(frame.f_locals.get('fn_name', ''))
    return None, ''


def _is_of_mmengine(hook: object) -> bool:
    return type(hook).__module__.startswith('mmengine.')


def _is_of_optimizer(frames: Sequence[FrameType]) -> bool:
    """Return whether an optimizer ran, called by no module."""
    for frame in reversed(frames):
        owner = frame.f_locals.get('self')
        if isinstance(owner, torch.nn.Module | Strategy):
            return False
        if _optimizes(frame):
            return True
    return False


def _optimizes(frame: FrameType) -> bool:
    """Return whether a frame is an optimizer's, or its wrapper's where that calls no network."""
    owner, name = frame.f_locals.get('self'), frame.f_code.co_name
    in_wrapper = isinstance(owner, OptimWrapper) and name in _OF_WRAPPER
    return in_wrapper or isinstance(owner, torch.optim.Optimizer)


def _in_words(frames: Sequence[FrameType]) -> str:
    """Return which part of a stage ran: a component, the optimizer or the model."""
    for frame in reversed(frames):
        owner = frame.f_locals.get('self')
        if isinstance(owner, Strategy) and not type(owner).__module__.startswith('easypruner.'):
            return f'{frame.f_code.co_name}() of the plugin {type(owner).__name__}'
        if _optimizes(frame):
            return f'the optimizer {type(owner).__name__}'
        if isinstance(owner, torch.nn.Module):
            return f'the model, in {type(owner).__name__},'
    return 'code of the run'
