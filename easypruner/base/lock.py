"""The lock of a folder: one process owns the folder, and every other one learns which."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from easypruner.base.files import make_folder
from easypruner.base.stopping import signal_main
from easypruner.errors import EasyPrunerError

LOCK = 'run.lock'
BEAT = 20.0
"""The seconds between two signs of life of an owner."""
SILENT = 180.0
"""The seconds without a sign of life after which a process of another machine counts as ended."""
_TRIES = 20
_LOST: signal.Signals = getattr(signal, 'SIGUSR1', signal.SIGINT)
"""The signal that interrupts a run without its lock. Jobs in the background may ignore SIGINT."""


@dataclass(frozen=True)
class Owner:
    """The process that owns a folder.

    Attributes:
        host: the name of its machine.
        machine: the machine since its last start, and the process namespace, which differs between
            containers; '' if the system does not tell.
        pid: the number of the process.
        started: when the process started, in the system's own terms. Numbers are used again.
        since: when it took the folder; for messages.
        token: a random text that no other owner has.
    """

    host: str
    machine: str
    pid: int
    started: str
    since: str
    token: str

    @classmethod
    def this_process(cls) -> Owner:
        """Return this process as the owner of a folder from now on."""
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            started=_process_start(os.getpid()),
            since=datetime.now().astimezone().isoformat(' ', 'seconds'),
            token=secrets.token_hex(16),
        )

    @classmethod
    def read(cls, content: bytes) -> Owner | None:
        """Read the content of a lock; None if it is damaged or not written yet."""
        try:
            owner = cls(**json.loads(content))
        except (ValueError, TypeError, RecursionError):
            return None
        return owner if isinstance(owner.pid, int) and owner.pid > 0 else None

    @property
    def is_local(self) -> bool:
        """Whether this process can see whether the owner is alive."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def is_running(self) -> bool:
        """Whether an owner on this machine is alive."""
        return _process_start(self.pid) in (self.started, _HIDDEN)


class FolderLock:
    """The lock of a folder: a file that names its owner.

    The owner renews the file's time as a sign of life. A lock is stale if its process does not run
    any more. Of a process on another machine or in another container, only the signs of life are
    known; their age is measured by the clock of the file system, so that clocks may differ.

    Args:
        folder: the folder; it is created if it is missing.
        option: the option that gives the folder, for messages.
        kind: what the folder is, for messages.
    """

    def __init__(
        self, folder: Path, option: str = '--work-dir', kind: str = 'work directory'
    ) -> None:
        self.folder = folder
        self._option = option
        self._kind = kind
        self.path = folder / LOCK
        self._owner: Owner | None = None
        self._created: list[Path] = []
        self._end = threading.Event()
        # No signal may come when its handler is gone: it would end the process.
        self._ending = threading.Lock()
        self._lost = False
        self._restore: Callable[[], object] = lambda: None

    def acquire(self) -> None:
        """Take the folder.

        Raises:
            EasyPrunerError: another process owns it; the message names the process.
        """
        owner = Owner.this_process()
        for _ in range(_TRIES):
            created = make_folder(self.folder)
            # The folder vanishes here if an owner who has left nothing in it removes it.
            with contextlib.suppress(FileNotFoundError):
                if self._placed(owner):
                    self._owner, self._created = owner, created
                    break
        else:
            raise EasyPrunerError(
                f'the lock {str(self.path)!r} changes all the time; wait until no other run starts '
                f'in this folder, or choose another with {self._option}'
            )
        self.check()
        is_main_thread = threading.current_thread() is threading.main_thread()
        if is_main_thread:
            before = signal.signal(_LOST, signal.default_int_handler)
            # A handler that was not installed from Python cannot be restored.
            self._restore = partial(signal.signal, _LOST, before or signal.SIG_DFL)
        threading.Thread(target=self._live, args=[is_main_thread], daemon=True).start()

    def check(self) -> None:
        """Raise EasyPrunerError if the folder does not belong to this process any more."""
        owner = self._owner
        try:
            now = Owner.read(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            found = 'has vanished'
        else:
            if owner is not None and now is not None and now.token == owner.token:
                return
            found = f'is that of {_describe(now)}'
        self._lost = True
        raise EasyPrunerError(
            f'the {self._kind} {str(self.folder)!r} does not belong to this run any more: its '
            f'lock {LOCK} {found}; this run stops, so that two runs do not mix'
        )

    def check_if_lost(self) -> None:
        """Raise EasyPrunerError if a sign of life has found that the folder was lost."""
        if self._lost:
            self.check()

    def release(self) -> None:
        """Give the folder back. Folders that :meth:`acquire` created and that are empty go."""
        with self._ending:
            self._end.set()
        self._restore()
        if self._owner is None or self._lost:
            return
        with contextlib.suppress(OSError, EasyPrunerError):
            self.check()
            self.path.unlink()
            for folder in self._created:
                folder.rmdir()
        self._owner = None

    def _placed(self, owner: Owner) -> bool:
        """Put the lock in its place; return False to try again, because the old one changed."""
        content = json.dumps(asdict(owner), indent=2)
        temporary = self.path.with_name(f'.{LOCK}.{owner.token}')
        try:
            temporary.write_text(content, encoding='utf-8')
            try:
                # A link appears at once with its content, also on network file systems.
                os.link(temporary, self.path)
            except FileExistsError:
                return self._took_over(temporary)
            except OSError:
                # Some file systems have no links.
                return self._created_exclusively(content) or self._took_over(temporary)
            return True
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _created_exclusively(self, content: str) -> bool:
        try:
            with self.path.open('x', encoding='utf-8') as file:
                file.write(content)
        except FileExistsError:
            return False
        return True

    def _took_over(self, temporary: Path) -> bool:
        """Replace a stale lock; return False if the lock has changed in the meantime."""
        mode = 'r+b' if os.access(self.path, os.W_OK) else 'rb'
        with self.path.open(mode) as file:
            _wait_for(file)
            status = os.fstat(file.fileno())
            # Another process may have replaced the stale lock while this one waited.
            if not os.path.samestat(status, self.path.stat()):
                return False
            silence = temporary.stat().st_mtime - status.st_mtime
            self._refuse_if_held(Owner.read(file.read()), silence)
            os.replace(temporary, self.path)
        return True

    def _refuse_if_held(self, owner: Owner | None, silence: float) -> None:
        subject = f'the {self._kind} {str(self.folder)!r} is in use by {_describe(owner)}'
        if owner is not None and owner.is_local:
            if owner.is_running:
                raise EasyPrunerError(
                    f'{subject}; wait until it has ended, or choose another with {self._option}'
                )
        elif silence < SILENT:
            raise EasyPrunerError(
                f'{subject}, whose last sign of life is {max(0, round(silence))} s old. Wait until '
                f'it has ended, or choose another with {self._option}. If it was killed, its lock '
                f'counts for {SILENT:g} s; if you are sure, delete {str(self.path)!r}'
            )

    def _live(self, interrupts: bool) -> None:
        """Give signs of life until the lock is released or lost."""
        while not self._end.wait(BEAT):
            # A network file system may fail for a while. The check before each save will tell.
            with contextlib.suppress(OSError):
                try:
                    self.check()
                except EasyPrunerError:
                    # A signal that comes right before the main thread starts to wait is not seen.
                    with self._ending:
                        if interrupts and not self._end.is_set():
                            signal_main(_LOST)
                            continue
                    return
                os.utime(self.path)


def _describe(owner: Owner | None) -> str:
    if owner is None:
        return 'an unknown process (its lock is damaged or incomplete)'
    return f'process {owner.pid} on {owner.host!r}, since {owner.since}'


_HIDDEN = 'hidden'


def _process_start(pid: int) -> str:
    """Return when a process started, :data:`_HIDDEN` if unknown, or '' if it does not run."""
    try:
        # The name of the program comes first, in brackets, and may have brackets in it.
        fields = Path(f'/proc/{pid}/stat').read_text('utf-8', 'replace').rpartition(')')[2].split()
    except OSError:
        try:
            os.kill(pid, 0)
        except PermissionError:
            # The processes of other users may be hidden.
            return _HIDDEN
        except (OSError, OverflowError):
            return ''
        return _HIDDEN
    state, started = fields[0], fields[19]
    return '' if state in 'ZX' else started


def _machine() -> str:
    """Return the machine since its last start and the process namespace; '' if not known."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text('utf-8').strip()
        namespace = str(Path('/proc/self/ns/pid').readlink())
    except OSError:
        return ''
    return f'{socket.gethostname()} {boot} {namespace}'


def _wait_for(file: IO[Any]) -> None:
    """Wait until no other process of this machine looks at a lock, if the system supports it."""
    with contextlib.suppress(OSError, ImportError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
