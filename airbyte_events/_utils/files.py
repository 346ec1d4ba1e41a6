"""Files that only their owner can read."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def read_fault(exc: OSError | ValueError) -> str:
    """Return why a text file can't be read, without its name."""
    if isinstance(exc, FileNotFoundError):
        return "no such file"
    return f"can't be read ({exc.strerror})" if isinstance(exc, OSError) else "not a file of UTF-8 text"


def check_writable(file: Path) -> None:
    """Check that :func:`write_private` can write a file, and leave it as it is.

    :raises OSError: if it can't.
    """
    descriptor, name, _ = _beside(file)
    os.close(descriptor)
    Path(name).unlink()


def write_private(file: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file atomically; only its owner can read it.

    A link stays, and the file that it points to is replaced.

    :param durable: whether the file is on disk when this returns.
    :raises OSError: if it can't be written, or is a device or a pipe; the old file is unchanged.
    """
    descriptor, name, file = _beside(file)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            if durable:
                os.fsync(descriptor)
        Path(name).replace(file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _beside(file: Path) -> tuple[int, str, Path]:
    """Return an open new file that only its owner can read, its name, and the file that it is to replace."""
    file = file.resolve()
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "is not a regular file", str(file))
    return *tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}."), file
