"""The package's C++, compiled by the machine's own compiler on first use and cached for later runs.

Everything in C++ here is also written in torch. If compiling fails, the torch version is used, and the log says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from alexnet_lab.base.cores import processor_facts
from alexnet_lab.base.files import atomic_path

log = logging.getLogger(__name__)

COMPILERS = ("g++", "clang++", "c++")
"""Compilers to try in this order, after the environment's CXX."""

OPENMP = "-fopenmp"

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", OPENMP, "-fPIC", "-shared")
"""Optimised for this CPU. No flag lets a result depend on how a loop was cut into vectors."""

PATIENCE = 120
"""The time limit of the compiler in seconds; it takes about two."""


class NativeError(Exception):
    """A source cannot be compiled or loaded here."""


class Library:
    """The functions of one source file.

    Args:
        source: A C++ file whose functions are `extern "C"` and return nothing.
        signatures: The argument types of each function.
        without: The log message if compiling fails: what is slower, and by how much.
    """

    def __init__(self, source: Path, signatures: Mapping[str, Sequence[type]], *, without: str) -> None:
        self.source = source
        self.signatures = signatures
        self.without = without
        self.broken = False
        self._loaded: ctypes.CDLL | None = None

    @property
    def available(self) -> bool:
        """Whether the functions can be called; compiles them if they are not cached."""
        if self._loaded is None and not self.broken:
            try:
                self._loaded = _open(compiled(self.source), self.signatures)
            except (NativeError, OSError) as error:
                self.broken = True
                log.info("%s (%s)", self.without, error)
        return not self.broken

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function without Python's lock.

        Raises:
            NativeError: It is not available.
        """
        if not self.available:
            raise NativeError(self.without)
        getattr(self._loaded, name)(*arguments)


def compiled(source: Path) -> Path:
    """The shared library of a source, from the cache if source, flags and CPU are the same.

    Raises:
        NativeError: There is no compiler, or it fails.
    """
    text = source.read_bytes()
    key = hashlib.sha256(b"\0".join([text, " ".join(FLAGS).encode(), _processor().encode()])).hexdigest()[:16]
    path = cache_folder() / f"{source.stem}-{key}.so"
    if not path.is_file():
        compiler = find_compiler()
        with atomic_path(path) as part:
            _compile(compiler, source, part)
    return path


def find_compiler() -> str:
    """The machine's C++ compiler.

    Raises:
        NativeError: There is none.
    """
    wanted = [name for name in (os.environ.get("CXX"), *COMPILERS) if name]
    found = next(filter(None, map(shutil.which, wanted)), None)
    if found is None:
        raise NativeError(f"no compiler: {', '.join(wanted)}")
    return found


def cache_folder() -> Path:
    """The folder for compiled code: the user's cache, or a new temporary folder if that cannot be written."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    folder = Path(root) / "alexnet-lab"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="alexnet-lab-"))
    return folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="alexnet-lab-"))


def _compile(compiler: str, source: Path, target: Path) -> None:
    """Compiles a source; in one thread if the compiler has no OpenMP, as Apple's."""
    try:
        _run_compiler(compiler, FLAGS, source, target)
    except NativeError:
        with contextlib.suppress(NativeError):
            _run_compiler(compiler, [flag for flag in FLAGS if flag != OPENMP], source, target)
            log.info("%s has no OpenMP: %s uses one thread", Path(compiler).name, source.name)
            return
        raise


def _run_compiler(compiler: str, flags: Sequence[str], source: Path, target: Path) -> None:
    try:
        subprocess.run(  # noqa: S603 - the user's own compiler
            [compiler, *flags, "-o", str(target), str(source)],
            check=True, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        complaint = (error.stderr or "").strip().splitlines()
        raise NativeError(f"{Path(compiler).name}: {complaint[0] if complaint else error}") from error
    except subprocess.TimeoutExpired as error:
        raise NativeError(f"{Path(compiler).name} took more than {PATIENCE} s") from error


def _open(path: Path, signatures: Mapping[str, Sequence[type]]) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.argtypes = list(arguments)
        function.restype = None
    return library


def _processor() -> str:
    """Identifies the machine among those that share a home folder: the CPU and its instruction sets."""
    facts = processor_facts()
    listed = [facts[name] for name in ("model name", "flags", "Features", "CPU part") if name in facts]
    return "\n".join(listed) or f"{platform.machine()} {platform.processor()}"
