"""The audit log: what was altered, left out or put in between is found."""

from __future__ import annotations

import json
import os

import pytest

from camserve_server.base.audit_log import AuditLog, BrokenChainError, verify
from camserve_server.base.telemetry import AUDIT_FAILURES


def written(path, *codes):
    log = AuditLog(path)
    for code in codes:
        log.write({"code": code, "tenant": "a"})
    return path.read_bytes().splitlines(keepends=True)


def test_lines_follow_one_another_also_after_a_restart_and_a_rotation(tmp_path):
    path = tmp_path / "audit.jsonl"
    written(path, "OK", "internal")
    log = AuditLog(path)
    log.write({"code": "third"})
    old = path.rename(tmp_path / "audit.jsonl.1")
    log.write({"code": "fourth"})
    first, second = old.read_bytes().splitlines(), path.read_bytes().splitlines()
    assert [json.loads(line)["code"] for line in (*first, *second)] == ["OK", "internal", "third", "fourth"]
    count, last = verify(first, "")
    assert count == 3
    assert verify(second, last)[0] == 1
    with pytest.raises(BrokenChainError, match="line 1"):
        verify(second, "")


def test_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "logs" / "audit.jsonl"
    written(path, "OK")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    ("broken", "at"),
    [
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: [lines[1], lines[0], lines[2]], 2),
        (lambda lines: [lines[0].replace(b'"a"', b'"b"'), *lines[1:]], 2),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
        (lambda lines: [*lines[:2], b"{}\n", lines[2]], 3),
        (lambda lines: [*lines[:2], lines[2][:9]], 3),
    ],
)
def test_what_was_changed_is_found(tmp_path, broken, at):
    lines = written(tmp_path / "audit.jsonl", "one", "two", "three")
    assert verify(lines)[0] == 3
    with pytest.raises(BrokenChainError, match=f"line {at}"):
        verify(broken(lines))


def test_a_line_that_cannot_be_written_is_counted_and_seen(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.write({"code": "one"})
    before = AUDIT_FAILURES._value.get()
    kept = path.rename(tmp_path / "kept")
    path.mkdir()
    log.write({"code": "lost"})
    path.rmdir()
    kept.rename(path)
    log.write({"code": "three"})
    assert AUDIT_FAILURES._value.get() == before + 1
    with pytest.raises(BrokenChainError, match="line 2"):
        verify(path.read_bytes().splitlines())


def test_a_line_that_is_cut_off_takes_no_other_along(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.write({"code": "one"})
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:9]))
        log.write({"code": "cut off"})
    log.write({"code": "three"})
    assert [json.loads(line)["code"] for line in path.read_text().splitlines()] == ["one", "three"]
    with pytest.raises(BrokenChainError, match="line 2"):
        verify(path.read_bytes().splitlines())
