"""A certificate for the ports between the edge and the replicas."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Commands on the replica's own machine reach it under these.
_HERE = ("localhost", "127.0.0.1")
_AUTHORITY_DAYS = 3650


def issue(folder: Path, names: list[str], *, days: int) -> None:
    """Writes `cert.pem` and `key.pem` for the names, and `ca.pem` and `ca-key.pem` where there are none yet.

    Raises OSError or ValueError when the folder cannot be used or a file of it cannot be read.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_file, ca_key_file = folder / "ca.pem", folder / "ca-key.pem"
    if ca_file.exists():
        authority = x509.load_pem_x509_certificate(ca_file.read_bytes())
        signer = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{ca_key_file} is not a key that this command made")
    else:
        signer = ec.generate_private_key(ec.SECP256R1())
        authority = _signed("camserve replicas", signer.public_key(), None, signer, _AUTHORITY_DAYS, names=())
        _write(ca_key_file, _private(signer))
        _write(ca_file, _public(authority))
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _signed(names[0], key.public_key(), authority, signer, days, names=dict.fromkeys((*names, *_HERE)))
    _write(folder / "key.pem", _private(key))
    _write(folder / "cert.pem", _public(leaf) + _public(authority))


def _signed(
    subject: str,
    key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    days: int,
    *,
    names: Iterable[str],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(authority.subject if authority else called)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    )
    if authority:
        alternatives = x509.SubjectAlternativeName([_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)
