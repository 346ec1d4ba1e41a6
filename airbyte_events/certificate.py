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
        self.context = self._context()

    def renew(self) -> bool:
        """Use what the files hold now; connections that there are go on with what they began with.

        :return: whether it is other than before.
        :raises SettingsError: if it can't be used; what was in use stays.
        """
        content = self._content()
        if content == self._loaded:
            return False
        self._context()  # one that is not in use: a certificate whose key has not come yet would spoil this one
        self._load(self.context)
        self._loaded = content
        return True

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # A password is not asked for: nobody is there to give it.
            context.load_cert_chain(self._certfile, self._keyfile, password=lambda: "")
        except (OSError, ValueError) as exc:
            raise _unusable(exc) from None

    def _content(self) -> list[bytes]:
        try:
            return [file.read_bytes() for file in (self._certfile, self._keyfile)]
        except OSError as exc:
            raise _unusable(exc) from None


def _unusable(exc: OSError | ValueError) -> SettingsError:
    fault = getattr(exc, "reason", None) or getattr(exc, "strerror", None) or str(exc)
    return SettingsError(
        f"AIRBYTE_EVENTS_TLS_CERTFILE: with its key it can't be used ({str(fault).lower().replace('_', ' ')});"
        " for example /etc/ssl/events.pem, with the key of the same certificate in AIRBYTE_EVENTS_TLS_KEYFILE"
    )
