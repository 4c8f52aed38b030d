"""Downloads, each checked against its published checksum before it is read."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from alexnet_lab.base.errors import DataError, one_line
from alexnet_lab.base.files import atomic_path
from alexnet_lab.data.preparation_bar import progress_bar

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
"""The time for a server to answer, so that offline users see the reason within seconds."""

BLOCK = 1 << 18


def md5(path: Path) -> str:
    """The MD5 of a file's bytes: the checksum that the data sets' authors published."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch(urls: Sequence[str], path: Path, checksum: str, advice: str) -> None:
    """Downloads a file from the first address that serves the right one, unless it is there already.

    Args:
        urls: Addresses of the same file.
        path: The target, written atomically.
        checksum: MD5 of the file.
        advice: What to do instead, for the message.

    Raises:
        DataError: No address served the file.
    """
    if path.is_file() and md5(path) == checksum:
        return
    reasons = []
    for url in urls:
        try:
            with atomic_path(path) as part:
                _receive(url, part)
                found = md5(part)
                if found != checksum:
                    raise OSError(f"MD5 {found} instead of {checksum}")
        except (OSError, HTTPException, ValueError) as error:  # of the network, the disk, or a broken answer
            reasons.append(f"{url}: {one_line(getattr(error, 'reason', error)) or type(error).__name__}")
        else:
            return
    raise DataError(f"{path.name} could not be downloaded ({'; '.join(reasons)}): {advice}")


def _receive(url: str, path: Path) -> None:
    log.info("downloading %s", url)
    if not url.startswith(("https://", "http://")):
        raise OSError("no web address")
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, path.open("wb") as file:  # noqa: S310 - http(s)
        total = int(answer.headers.get("Content-Length") or 0) or None
        with progress_bar(url.rpartition("/")[2], total) as advance:
            while block := answer.read(BLOCK):
                file.write(block)
                advance(len(block))


def unpack(archive: Path, inner: str, target: Path) -> None:
    """Extracts a tar archive and moves its folder `inner` to `target`, atomically.

    Raises:
        DataError: The archive is damaged, has no such folder, or has a member that would leave the folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        if not (temporary / inner).is_dir():
            raise DataError(f"{archive} holds no folder {inner}; delete it, and it is downloaded again")
        (temporary / inner).replace(target)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); delete it, and it is downloaded again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
