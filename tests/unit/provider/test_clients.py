"""Certificates of our own, for servers that want one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from airbyte_events.errors import SettingsError
from airbyte_events_provider.connections.clients import make_tls


def write_certificate(path: Path, encryption: KeySerializationEncryption) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "worker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption) + certificate)
    return str(path)


def test_a_certificate_with_its_key(tmp_path: Path) -> None:
    assert make_tls(True, write_certificate(tmp_path / "me.pem", NoEncryption()))


def test_a_key_with_a_password_is_refused_at_once(tmp_path: Path) -> None:
    path = write_certificate(tmp_path / "me.pem", BestAvailableEncryption(b"password"))
    with pytest.raises(SettingsError, match="the key has a password"):
        make_tls(True, path)


def test_a_file_without_a_key(tmp_path: Path) -> None:
    (tmp_path / "me.pem").write_text("nothing")
    with pytest.raises(SettingsError, match="client_cert: no certificate with its key in"):
        make_tls(True, str(tmp_path / "me.pem"))


def test_both_are_made_once(tmp_path: Path) -> None:
    path = write_certificate(tmp_path / "me.pem", NoEncryption())
    assert make_tls(True, path) is make_tls(True, path)
    assert make_tls(True, path) is not make_tls(True, None)
