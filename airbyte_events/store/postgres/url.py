"""The URL of a PostgreSQL store."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

import anyio

from airbyte_events.errors import StoreError
from airbyte_events.store.location import StoreLocation

if TYPE_CHECKING:
    from airbyte_events.store.base import EventStore

DEFAULT_SCHEMA = "airbyte_events"

_CHECK_SECONDS = 10.0

# Stricter than libpq, whose errors quote what it can't parse: that may be part of a password with an @ or a /.
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]|%2[Ff][A-Za-z0-9._%-]+)(?::[0-9]{1,5})?"
_URL = re.compile(
    rf"""postgres(?:ql)?://
    (?:(?P<user>[^@:/?\#\s]*)(?::(?P<password>[^@:/?\#\s]*))?@)?
    (?P<hosts>{_HOST}(?:,{_HOST})*)?
    (?:/(?P<database>[^@:/?\#\s]*))?
    (?:\?(?P<query>[^@?\#\s]*))?""",
    re.VERBOSE,
)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresURL(StoreLocation):
    """A libpq URL, ``postgresql://user:password@host/database``, with the additional option ``schema``.

    Its ``str`` and ``repr`` omit user, password and options.

    :param conninfo: the URL for libpq.
    :param schema: name of the schema that holds the tables.
    :param shown: host and database.
    :param secrets: texts to remove from messages.
    """

    kind = "postgresql"
    extra = "postgres"
    remedy = "check that this machine reaches the database"

    conninfo: str = field(repr=False)
    schema: str
    shown: str
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        match = _URL.fullmatch(url)
        if match is None or _BAD_ESCAPE.search(url):
            raise ValueError(
                "not written postgresql://user:password@host:5432/database; in user and password a % is written %25,"
                " a / %2F, an @ %40, a : %3A, a ? %3F and a # %23"
            )
        schema = DEFAULT_SCHEMA
        options = []
        passwords = [match["password"] or ""]
        for option in filter(None, (match["query"] or "").split("&")):
            name, _, value = option.partition("=")
            if name == "schema":
                schema = value
            else:
                options.append(option)
            if "password" in name:
                passwords.append(value)
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,47}", schema) or schema.startswith("pg_"):
            raise ValueError("the schema is 1 to 48 small letters, digits and _ long, with no digit and no pg_ first")
        where = f"postgresql://{match['hosts'] or ''}/{match['database'] or ''}"
        return cls(
            conninfo=url.partition("?")[0] + ("?" + "&".join(options) if options else ""),
            schema=schema,
            shown=where if schema == DEFAULT_SCHEMA else f"{where}?schema={schema}",
            secrets=tuple(secret for each in passwords for secret in {each, unquote(each)} if secret),
        )

    def store(self) -> EventStore:
        try:
            from airbyte_events.store.postgres.store import PostgresStore
        except ImportError as exc:
            raise StoreError(
                f"there is no driver for PostgreSQL ({exc}): pip install 'airbyte-events[{self.extra}]'"
            ) from None
        return PostgresStore(self)

    async def check(self) -> str:
        from airbyte_events.store.postgres.pool import connect

        try:
            with anyio.fail_after(_CHECK_SECONDS):
                await (await connect(self)).close()
        except (StoreError, TimeoutError) as exc:
            raise StoreError(f"{self}: {str(exc) or f'no response within {_CHECK_SECONDS:g} s'}") from exc
        return f"{self} answers"

    def __str__(self) -> str:
        return self.shown

    def hide(self, text: str) -> str:
        """Return the text with passwords replaced."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text
