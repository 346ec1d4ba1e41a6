"""The TLS certificate of a server, reloaded when its files change."""

from __future__ import annotations

import ssl
from pathlib import Path

from airbyte_events._utils.files import place_of, read_fault
from airbyte_events.errors import SettingsError


class Certificate:
    """A certificate and its key, as a TLS context for servers: TLS 1.2 or newer.

    :param certfile: the chain, PEM.
    :param keyfile: its key, PEM; None if that is in the same file.
    :raises SettingsError: if they can't be used.
    """

    def __init__(self, certfile: Path, keyfile: Path | None) -> None:
        self._certfile = certfile
        self._keyfile = keyfile or certfile
        self._loaded = self._content()
        self.context = self._shown = self._context()
        self.context.sni_callback = self._show

    def reload(self) -> bool:
        """Use the current content of the files for new connections.

        :return: whether it changed.
        :raises SettingsError: if it can't be used; the previous certificate stays in use.
        """
        content = self._content()
        if content == self._loaded:
            return False
        # A new context: the old one would keep a certificate with another type of key beside the new one.
        self._shown = self._context()
        self._loaded = content
        return True

    def _show(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._shown

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # No password prompt: nobody could answer it.
            context.load_cert_chain(self._certfile, self._keyfile, password=lambda: "")
        except (OSError, ValueError) as exc:
            raise self._unusable(exc) from None
        return context

    def _content(self) -> list[bytes]:
        return [_read("CERTFILE", self._certfile), _read("KEYFILE", self._keyfile)]

    def _unusable(self, exc: OSError | ValueError) -> SettingsError:
        fault = str(getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc).lower().replace("_", " ")
        if "pem lib" in fault:  # all that OpenSSL reports
            fault = "one of the two is not PEM, or the key has a password"
        return SettingsError(
            f"AIRBYTE_EVENTS_TLS_CERTFILE: {place_of(self._certfile)}: can't be used with its key,"
            f" {place_of(self._keyfile)} ({fault}); for example /etc/ssl/events.pem, with the key of the same"
            " certificate in AIRBYTE_EVENTS_TLS_KEYFILE"
        )


def _read(setting: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise SettingsError(
            f"AIRBYTE_EVENTS_TLS_{setting}: {place_of(file)}: {read_fault(exc)}; write a file that the listener's user"
            " can read"
        ) from None
