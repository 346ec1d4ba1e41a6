"""The certificate that a listener shows: taken over anew when its files change."""

from __future__ import annotations

import ssl
from pathlib import Path

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
        """Use what the files hold now; connections that there are go on with what they began with.

        :return: whether it is other than before.
        :raises SettingsError: if it can't be used; what was in use stays.
        """
        content = self._content()
        if content == self._loaded:
            return False
        # A new context: in the one of before, a certificate with another kind of key would stay beside the new one.
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
            # A password is not asked for: nobody is there to give it.
            context.load_cert_chain(self._certfile, self._keyfile, password=lambda: "")
        except (OSError, ValueError) as exc:
            raise _unusable(exc) from None
        return context

    def _content(self) -> list[bytes]:
        try:
            return [file.read_bytes() for file in (self._certfile, self._keyfile)]
        except OSError as exc:
            raise _unusable(exc) from None


def _unusable(exc: OSError | ValueError) -> SettingsError:
    fault = str(getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc).lower().replace("_", " ")
    if "pem lib" in fault:  # all that OpenSSL says of what it can't read
        fault = "one of the two is no PEM, or the key has a password"
    return SettingsError(
        f"AIRBYTE_EVENTS_TLS_CERTFILE: with its key it can't be used ({fault});"
        " for example /etc/ssl/events.pem, with the key of the same certificate in AIRBYTE_EVENTS_TLS_KEYFILE"
    )
