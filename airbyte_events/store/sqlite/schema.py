"""The schema of a SQLite store and its migrations."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from pathlib import Path

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.errors import StoreError

logger = logging.getLogger(__name__)

# One migration for each version of the schema.
_STEPS = (
    """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL, job_id INTEGER NOT NULL, connection_id TEXT, status TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX events_by_job ON events (instance, job_id);
CREATE TABLE jobs (
    instance TEXT NOT NULL, job_id INTEGER NOT NULL, connection_id TEXT, status TEXT NOT NULL,
    sequence INTEGER NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (instance, job_id)
) WITHOUT ROWID;
CREATE INDEX jobs_by_sequence ON jobs (sequence);
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL, digest BLOB NOT NULL UNIQUE, received_at TEXT NOT NULL, kind TEXT NOT NULL,
    job_id INTEGER, body BLOB NOT NULL, outcome TEXT NOT NULL, settled_at TEXT
);
CREATE INDEX notifications_pending ON notifications (instance, id) WHERE outcome = 'pending';
CREATE INDEX notifications_by_job ON notifications (instance, job_id) WHERE job_id IS NOT NULL;
""",
    """
CREATE TABLE watches (
    instance TEXT NOT NULL, job_id INTEGER NOT NULL, since TEXT NOT NULL, until TEXT NOT NULL,
    PRIMARY KEY (instance, job_id)
) WITHOUT ROWID;
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    notification INTEGER NOT NULL, instance TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, due_at TEXT NOT NULL, fault TEXT,
    UNIQUE (notification, target)
);
CREATE INDEX deliveries_due ON deliveries (instance, due_at) WHERE state = 'due';
CREATE INDEX deliveries_dead ON deliveries (id) WHERE state = 'dead';
""",
)
VERSION = len(_STEPS)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Migrate the tables to this version, or create them.

    :raises StoreError: if they are of a newer version or of another program.
    """
    version = _version(connection, path)
    if version == VERSION:
        return
    steps = list(_STEPS[version:])
    if version == 0:
        steps.append(f"INSERT INTO meta VALUES ('epoch', '{secrets.token_hex(8)}');")
    # One transaction, so that a power failure leaves one version or the other.
    connection.executescript(f"BEGIN IMMEDIATE; {''.join(steps)} PRAGMA user_version = {VERSION}; COMMIT;")
    logger.info("%s the store %s, schema %d", "created" if version == 0 else "migrated", path, VERSION)


def add_now(connection: sqlite3.Connection) -> None:
    """Add the function ``now()`` as in PostgreSQL: the time, which is the same in all of a statement."""
    connection.create_function("now", 0, lambda: format_time(utcnow()), deterministic=True)


def create_in_memory() -> sqlite3.Connection:
    """Return a database in memory with the tables of this version."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    add_now(connection)
    connection.executescript("".join(_STEPS))
    return connection


def ensure_newest(connection: sqlite3.Connection, path: Path) -> None:
    """:raises StoreError: if the tables are not of this version."""
    version = _version(connection, path)
    if version < VERSION:
        raise StoreError(
            f"the store {path} was written by an older airbyte-events (schema {version}, this one has {VERSION}):"
            " start this one's listener on it once"
        )


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise StoreError(
            f"the store {path} was written by a newer airbyte-events (schema {version}, this one knows {VERSION}):"
            " upgrade airbyte-events, or name another file"
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(f"{path} is the database of something else: name another file")
    return version
