"""The key ring: made once, shared by processes, rotated without a restart."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from tests.clock import FakeClock

from camserve_server.stores.keyring import KeyRing, KeyRingError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "objects.json"


def test_first_use_makes_a_private_ring_of_one_key(path: Path) -> None:
    key = KeyRing(path, clock=FakeClock(1000.0)).primary()
    document = json.loads(path.read_text())
    assert list(document["keys"]) == [document["primary"]] == [key.id]
    assert key.created_at == 1000.0
    assert len(key.secret) == 32
    assert key.id_bytes.hex() == key.id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_second_process_reads_the_ring_of_the_first(path: Path) -> None:
    first = KeyRing(path, clock=FakeClock()).primary()
    assert KeyRing(path, clock=FakeClock()).primary() == first


def test_racing_threads_agree_on_one_ring_and_leave_no_drafts(tmp_path: Path) -> None:
    racers = 8
    with ThreadPoolExecutor(racers) as threads:
        for round_number in range(20):
            path = tmp_path / str(round_number) / "ring.json"
            barrier = Barrier(racers)

            def race(_: int, path: Path = path, barrier: Barrier = barrier) -> bytes:
                barrier.wait()
                return KeyRing(path, clock=FakeClock()).primary().secret

            assert len(set(threads.map(race, range(racers)))) == 1
            assert [file.name for file in path.parent.iterdir()] == ["ring.json"]


def test_racing_processes_agree_on_one_ring(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from camserve_server.base.clock import SystemClock; from camserve_server.stores.keyring import KeyRing\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "sys.stdout.write(KeyRing(Path(sys.argv[1]), clock=SystemClock()).primary().secret.hex())\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    (secret,) = {racer.communicate()[0] for racer in racers}
    assert len(secret) == 64


def test_rotation_makes_a_new_primary_and_keeps_the_old_key(path: Path) -> None:
    ring = KeyRing(path, clock=FakeClock())
    old = ring.primary()
    new_id = ring.rotate()
    assert ring.primary().id == new_id != old.id
    assert ring.get(old.id) == old
    assert ring.keys() == [old, ring.primary()]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_process_sees_a_rotation_within_a_second(path: Path) -> None:
    clock = FakeClock()
    ring, other = KeyRing(path, clock=clock), KeyRing(path, clock=clock)
    old = ring.primary().id
    new = ring.rotate()
    assert other.primary().id == old
    clock.advance(1.0)
    assert other.primary().id == new


def test_unknown_key_is_looked_for_at_once(path: Path) -> None:
    clock = FakeClock()
    ring, other = KeyRing(path, clock=clock), KeyRing(path, clock=clock)
    new = ring.get(ring.rotate())
    assert new is not None
    assert other.get(new.id_bytes) == new
    assert other.get("00000000") is None


def test_concurrent_rotations_lose_no_key(path: Path) -> None:
    KeyRing(path, clock=FakeClock())
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda _: KeyRing(path, clock=FakeClock()).rotate(), range(16)))
    kept = KeyRing(path, clock=FakeClock()).keys()
    assert made < {key.id for key in kept}
    assert len(kept) == 17


def test_purposes_and_keys_and_lengths_derive_different_subkeys(path: Path) -> None:
    ring = KeyRing(path, clock=FakeClock())
    old = ring.primary()
    ring.rotate()
    new = ring.primary()
    derived = {ring.subkey(key, purpose) for key in (old, new) for purpose in ("object", "url")}
    assert len(derived | {old.secret, new.secret}) == 6
    assert len(ring.subkey(new, "object", 64)) == 64
    assert ring.subkey(new, "object") == KeyRing(path, clock=FakeClock()).subkey(new, "object")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        '{"primary": "00000000", "keys": {}}',
        '{"primary": "00000000", "keys": {"00000000": {"key": "AAAA", "created_at": 1}}}',
        '{"primary": "00000000", "keys": {"00000000": {"key": "***", "created_at": 1}}}',
        '{"primary": "../x", "keys": {"../x": {"key": "", "created_at": 1}}}',
    ],
)
def test_damaged_ring_stops_the_start_and_is_not_replaced(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(KeyRingError, match=r"objects\.json"):
        KeyRing(path, clock=FakeClock())
    assert path.read_text() == content


def test_damaged_or_missing_file_does_not_stop_a_running_ring(path: Path) -> None:
    clock = FakeClock()
    ring = KeyRing(path, clock=clock)
    key, content = ring.primary(), path.read_text()
    path.write_text("damaged")
    clock.advance(2)
    assert ring.primary() == key
    path.unlink()
    clock.advance(2)
    assert ring.primary() == key
    path.write_text(content)
    KeyRing(path, clock=clock).rotate()
    clock.advance(2)
    assert ring.primary() != key


def test_secrets_are_not_in_the_text_of_a_key(path: Path) -> None:
    key = KeyRing(path, clock=FakeClock()).primary()
    assert "secret" not in repr(key)


def test_a_key_that_begins_later_opens_at_once_and_makes_nothing_yet(path: Path) -> None:
    clock = FakeClock(1000.0)
    ring = KeyRing(path, clock=clock)
    first = ring.primary()
    key_id = ring.rotate(after_s=600)
    other = KeyRing(path, clock=clock)
    assert other.get(key_id) is not None
    assert other.primary().id == ring.primary().id == first.id
    clock.advance(599)
    assert other.primary().id == first.id
    clock.advance(1)
    assert other.primary().id == ring.primary().id == key_id


def test_rotations_that_wait_begin_in_their_order(path: Path) -> None:
    clock = FakeClock(1000.0)
    ring = KeyRing(path, clock=clock)
    second = ring.rotate(after_s=100)
    third = ring.rotate(after_s=300)
    clock.advance(100)
    assert ring.primary().id == second
    clock.advance(200)
    assert ring.primary().id == third
    assert ring.rotate() == ring.primary().id


def test_a_rotation_at_once_is_not_undone_by_one_that_waited(path: Path) -> None:
    clock = FakeClock(1000.0)
    ring = KeyRing(path, clock=clock)
    ring.rotate(after_s=100)
    now = ring.rotate()
    clock.advance(200)
    assert KeyRing(path, clock=clock).primary().id == ring.primary().id == now
