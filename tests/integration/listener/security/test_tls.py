"""TLS, and certificates that are renewed."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
import trustme
from anyio.streams.tls import TLSAttribute

from airbyte_events.errors import SettingsError
from airbyte_events.listener.assembly import Listener
from airbyte_events.web.server import serving
from airbyte_events.web.tls import Certificate
from support.exposed import listening, until_end

pytestmark = pytest.mark.anyio


@dataclass
class Files:
    """A certificate's files."""

    folder: Path
    authority: trustme.CA

    def __post_init__(self) -> None:
        self.cert, self.key = self.folder / "tls.crt", self.folder / "tls.key"

    def issue(self, *names: str, key: bool = True, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        issued = self.authority.issue_cert(*names, key_type=kind)
        self.cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        if key:
            self.key.write_bytes(issued.private_key_pem.bytes())

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, trustme.CA())


class TestTLS:
    async def test_a_renewed_certificate_is_shown_without_a_restart(self, files: Files) -> None:
        files.issue("127.0.0.1", "old.example")
        certificate = Certificate(files.cert, files.key)
        async with listening() as plain, listening_by_tls(plain.listener, certificate) as port:

            async def names() -> list[str]:
                async with await anyio.connect_tcp(
                    "127.0.0.1", port, tls=True, ssl_context=files.client(), tls_hostname="127.0.0.1"
                ) as stream:
                    shown: Any = stream.extra(TLSAttribute.peer_certificate)
                    return [name for kind, name in shown["subjectAltName"] if kind == "DNS"]

            assert await names() == ["old.example"]
            assert not certificate.reload()
            # The certificate is there before its key: what was shown is shown until both are.
            files.issue("127.0.0.1", "half.example", key=False)
            with pytest.raises(SettingsError, match="TLS_CERTFILE"):
                certificate.reload()
            assert await names() == ["old.example"]
            files.issue("127.0.0.1", "new.example")
            assert certificate.reload()
            assert await names() == ["new.example"]
            # A server has one of each kind, and a client takes the kind that it prefers: the one of before is gone.
            files.issue("127.0.0.1", "other-kind.example", kind=trustme.KeyType.RSA)
            assert certificate.reload()
            assert await names() == ["other-kind.example"]

    async def test_garbage_and_silence_harm_nobody(self, files: Files) -> None:
        files.issue("127.0.0.1")
        async with (
            listening() as plain,
            listening_by_tls(plain.listener, Certificate(files.cert, files.key)) as port,
            await anyio.connect_tcp("127.0.0.1", port),
            await anyio.connect_tcp("127.0.0.1", port) as garbage,
        ):
            await garbage.send(b"GET / HTTP/1.1\r\n\r\n")
            await until_end(garbage)
            async with httpx.AsyncClient(verify=files.client(), trust_env=False) as http:
                assert (await http.get(f"https://127.0.0.1:{port}/healthz")).status_code == 200

    def test_wants_tls_1_2_or_newer(self, files: Files) -> None:
        files.issue("127.0.0.1")
        assert Certificate(files.cert, files.key).context.minimum_version is ssl.TLSVersion.TLSv1_2

    def test_what_can_not_be_used_is_told_in_one_line(self, files: Files) -> None:
        files.issue("127.0.0.1")
        files.key.write_text("no key")
        with pytest.raises(SettingsError, match=r"^AIRBYTE_EVENTS_TLS_CERTFILE: .* not PEM, or .*; for .*$") as caught:
            Certificate(files.cert, files.key)
        assert f": {files.cert}: can't be used with its key, {files.key} (" in str(caught.value)
        none = files.folder / "none"
        with pytest.raises(SettingsError, match=f"^AIRBYTE_EVENTS_TLS_CERTFILE: {none}: no such file; "):
            Certificate(none, None)
        with pytest.raises(SettingsError, match=f"^AIRBYTE_EVENTS_TLS_KEYFILE: {none}: no such file; "):
            Certificate(files.cert, none)


@asynccontextmanager
async def listening_by_tls(listener: Listener, certificate: Certificate) -> AsyncIterator[int]:
    async with serving(listener.app, tls=certificate.context, timeout_graceful_shutdown=5) as url:
        port = urlsplit(url).port
        assert port is not None
        yield port
