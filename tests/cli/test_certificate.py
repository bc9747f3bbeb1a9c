"""The certificate between the edge and the replicas: for their names, renewed under one authority, private."""

from __future__ import annotations

import stat
from pathlib import Path

from cryptography import x509

from camserve_server.cli.certificate import issue


def test_it_is_for_the_names_and_this_machine(tmp_path: Path) -> None:
    issue(tmp_path, ["cam-api.prod.svc", "10.0.0.5"], days=30)
    leaf, authority = x509.load_pem_x509_certificates((tmp_path / "cert.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cam-api.prod.svc", "localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5", "127.0.0.1"]
    leaf.verify_directly_issued_by(authority)
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 30
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_renewed_one_is_of_the_same_authority(tmp_path: Path) -> None:
    issue(tmp_path, ["api"], days=30)
    before, authority = (tmp_path / "cert.pem").read_bytes(), (tmp_path / "ca.pem").read_bytes()
    issue(tmp_path, ["api"], days=30)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert (tmp_path / "cert.pem").read_bytes() != before
