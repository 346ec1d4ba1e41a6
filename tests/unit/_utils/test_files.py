"""Files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from airbyte_events._utils.files import check_writable, write_private


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_and_readable_by_its_owner_alone(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "kept"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new", durable=durable)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_a_link_stays(tmp_path: Path) -> None:
    file, link = tmp_path / "volume" / "kept", tmp_path / "link"
    file.parent.mkdir()
    link.symlink_to(file)
    write_private(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """As root, a device would be gone for all programs."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        check_writable(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        write_private(pipe, "new")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_a_check_leaves_everything_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    check_writable(file)
    assert list(tmp_path.iterdir()) == []
    file.write_text("old")
    check_writable(file)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "nowhere" / "kept")
