"""Where the service is and who calls, kept between commands in a file that only its owner reads."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import typer

DEFAULT_ADDRESS = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Login:
    """What `cam login` keeps."""

    address: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...] = ()
    ca_file: str | None = None


def place() -> Path:
    """Returns the file: `CAM_LOGIN_FILE`, or `camserve/login.json` where the system keeps settings."""
    named = os.environ.get("CAM_LOGIN_FILE")
    return Path(named) if named else Path(typer.get_app_dir("camserve")) / "login.json"


def load() -> Login | None:
    """Returns what was kept, or None; raises ValueError for a file that is not ours."""
    try:
        kept = json.loads(place().read_text())
        return Login(**{**kept, "scopes": tuple(kept["scopes"])})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{place()} is no login file: remove it and run `cam login` again") from None


def save(login: Login) -> Path:
    """Writes the file, readable by its owner only from its first byte on, and returns its path."""
    path = place()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made with mode 0600, and then put in the place of the old one at once.
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(asdict(login), file)
    os.replace(name, path)
    return path


def remove() -> bool:
    """Removes the file, and returns whether there was one."""
    existed = place().exists()
    place().unlink(missing_ok=True)
    return existed
