"""A ring of master keys in one file that every process of a stack shares."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from camserve_server.base.clock import Clock
from camserve_server.base.errors import OperatorError

MASTER_KEY_BYTES = 32
KEY_ID_BYTES = 4
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_CHECK_INTERVAL_S = 1.0


class KeyRingError(OperatorError):
    """A ring that cannot be read or written; the message is for operators, not for callers."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One key of a ring; `id` is 8 hex digits, `secret` 32 bytes, times in unix seconds.

    It makes nothing before `begins_at`, though it opens what others made with it.
    """

    id: str
    secret: bytes = field(repr=False)
    created_at: float
    begins_at: float = 0.0

    @property
    def id_bytes(self) -> bytes:
        """The id as the 4 bytes that file headers and tokens carry."""
        return bytes.fromhex(self.id)


@dataclass(frozen=True, slots=True)
class _Ring:
    primary: str
    keys: dict[str, MasterKey]
    stamp: tuple[int, int, int]
    subkeys: dict[tuple[str, str, int], bytes] = field(default_factory=dict)


class KeyRing:
    """Master keys by id, one of them primary: it makes what is new, the others still open what is old.

    The file is made at first use and looked at again at most once a second, so a rotation in one process
    reaches all others without a restart. A key id that is not known is looked for at once, because another
    process may have rotated a moment ago. Methods may be called from any thread.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._checked_at = clock.monotonic()
        self._ring = self._load_or_create()

    def primary(self) -> MasterKey:
        """Returns the key for everything new: the newest that has begun."""
        ring, now = self._current(), self._clock.now()
        begun = [key for key in ring.keys.values() if key.begins_at and key.begins_at <= now]
        return begun[-1] if begun else ring.keys[ring.primary]

    def oldest(self) -> MasterKey:
        """Returns the key that was there first, for what must come out the same after a rotation."""
        return next(iter(self._current().keys.values()))

    def keys(self) -> list[MasterKey]:
        """Returns all keys, the newest last."""
        return list(self._current().keys.values())

    def get(self, key_id: str | bytes) -> MasterKey | None:
        """Returns the key of this id (8 hex digits or 4 bytes), or None when the ring does not have it."""
        wanted = key_id.hex() if isinstance(key_id, bytes) else key_id
        key = self._current().keys.get(wanted)
        return key or self._current(at_once=True).keys.get(wanted)

    def subkey(self, key: MasterKey, purpose: str, length: int = 32) -> bytes:
        """Derives the key of one purpose by HKDF-SHA256, so that no two purposes share key bytes."""
        subkeys = self._ring.subkeys
        derived = subkeys.get((key.id, purpose, length))
        if derived is None:
            info = f"camserve {purpose}".encode()
            derived = HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(key.secret)
            subkeys[key.id, purpose, length] = derived
        return derived

    def rotate(self, *, after_s: float = 0.0) -> str:
        """Adds a new primary key and returns its id; all earlier keys stay readable.

        With `after_s` the key makes nothing before that time is over: as long as copies of the file need to reach
        every process, which must know the key before it meets what another one made with it.
        """
        with _os_errors(self._path), _locked(self._path.parent):
            self._ring = self._read()
            primary = self.primary()
            key = self._new_key(taken=self._ring.keys, after_s=after_s)
            # Only what is still to begin needs its time, and not even that where a newer key begins at once.
            keys = {
                old.id: old if after_s and old.begins_at > key.created_at else dataclasses.replace(old, begins_at=0.0)
                for old in self._ring.keys.values()
            }
            _replace(self._path, _encode(primary.id if after_s else key.id, {**keys, key.id: key}))
            self._ring = self._read()
        return key.id

    def _current(self, *, at_once: bool = False) -> _Ring:
        now = self._clock.monotonic()
        if at_once or now - self._checked_at >= _CHECK_INTERVAL_S:
            self._checked_at = now
            # A ring that was readable once stays in use while its file is missing or damaged: whoever
            # replaces it by hand must not stop the service, and the next look finds the repaired file.
            with contextlib.suppress(KeyRingError, OSError):
                if _stamp(os.stat(self._path)) != self._ring.stamp:
                    self._ring = self._read()
        return self._ring

    def _load_or_create(self) -> _Ring:
        with _os_errors(self._path):
            try:
                return self._read()
            except FileNotFoundError:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                key = self._new_key(taken={})
                _create(self._path, _encode(key.id, {key.id: key}))
                return self._read()

    def _read(self) -> _Ring:
        with open(self._path, "rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            text = file.read()
        try:
            return _decode(text, stamp)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise KeyRingError(f"{self._path} is not a key ring: {error}") from error

    def _new_key(self, taken: dict[str, MasterKey], after_s: float = 0.0) -> MasterKey:
        key_id = secrets.token_hex(KEY_ID_BYTES)
        while key_id in taken:
            key_id = secrets.token_hex(KEY_ID_BYTES)
        now = self._clock.now()
        return MasterKey(key_id, secrets.token_bytes(MASTER_KEY_BYTES), now, now + after_s if after_s else 0.0)


def _encode(primary: str, keys: dict[str, MasterKey]) -> bytes:
    rows = {
        key.id: {"key": base64.b64encode(key.secret).decode(), "created_at": key.created_at}
        | ({"begins_at": key.begins_at} if key.begins_at else {})
        for key in keys.values()
    }
    return json.dumps({"primary": primary, "keys": rows}, indent=1).encode() + b"\n"


def _decode(text: bytes, stamp: tuple[int, int, int]) -> _Ring:
    document = json.loads(text)
    keys = {}
    for key_id, row in document["keys"].items():
        try:
            secret = base64.b64decode(row["key"], validate=True)
        except binascii.Error:
            secret = b""
        if not _KEY_ID.fullmatch(key_id) or len(secret) != MASTER_KEY_BYTES:
            raise ValueError(f"key {key_id!r} is malformed")
        keys[key_id] = MasterKey(key_id, secret, float(row["created_at"]), float(row.get("begins_at", 0)))
    if document["primary"] not in keys:
        raise ValueError("the primary key is missing")
    return _Ring(document["primary"], keys, stamp)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _create(path: Path, content: bytes) -> None:
    # A link appears with the whole content or not at all, and only one of several racing processes
    # gets it; the losers then read the winner's ring.
    draft = _write_draft(path, content)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    _sync_folder(path.parent)


def _replace(path: Path, content: bytes) -> None:
    draft = _write_draft(path, content)
    try:
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise
    _sync_folder(path.parent)


def _write_draft(path: Path, content: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    return draft


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The lock sits on the folder: the ring's own inode changes with every rotation.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KeyRingError(f"{path} cannot be used: {error.strerror}") from error
