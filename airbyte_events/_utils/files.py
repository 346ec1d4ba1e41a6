"""Files of settings and secrets: why one can't be read, and files that only their owner can read."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from airbyte_events._utils.printable import shown


def read_fault(exc: OSError | ValueError) -> str:
    """Return why a text file can't be read, without its name."""
    if isinstance(exc, FileNotFoundError):
        return "no such file"
    return f"can't be read ({exc.strerror})" if isinstance(exc, OSError) else "not a file of UTF-8 text"


def place_of(name: Path | str, folder: Path | None = None) -> str:
    """Return the path of a file that a setting names, for an error.

    A secret may be given to a setting that expects a file's name, so a name is shown only if it is the path of
    something: the file, or the first folder of its path, exists. Otherwise the error has the folder alone.

    :param folder: where the name counts from; by default the working directory.
    """
    start = (folder or Path()).absolute()
    path = start / name
    begin = start if path.is_relative_to(start) else Path(path.anchor)
    first, *further = path.relative_to(begin).parts or (".",)
    # Unlike those of Path, these never raise: a secret may be too long for a file's name.
    if os.path.lexists(path) or (further and os.path.isdir(begin / first)):  # noqa: PTH112
        return shown(str(path))
    return f"the file that it names in {shown(str(begin))}"


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
