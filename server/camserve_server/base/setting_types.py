"""What a setting may be: types with the checks that make one."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

Role = Literal["api", "worker", "courier", "janitor"]
ROLES: tuple[Role, ...] = ("api", "worker", "courier", "janitor")

BUCKET: Final = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*))?/?"
)
_WEB_ADDRESS: Final = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
_COLLECTOR: Final = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[1-9][0-9]{0,4})?")
_KEYS_ADDRESS: Final = re.compile(
    r"https://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[1-9][0-9]{0,4})?(/[!-\"$-~]*)?"
    r"|http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[1-9][0-9]{0,4})?(/[!-\"$-~]*)?"
)
_LISTENER: Final = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>[1-9][0-9]{0,4})")
_PLACE: Final = re.compile(r"((?P<v4>[0-9.]+)/32|\[(?P<v6>[0-9a-fA-F:.]+)\]/128):(?P<port>[1-9][0-9]{0,4})")
_DEVICE: Final = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _places(value: tuple[str, ...]) -> tuple[str, ...]:
    for place in value:
        match = _PLACE.fullmatch(place)
        if match is None or int(match["port"]) > 65535:
            raise ValueError(f"{place!r} is not like 127.0.0.1/32:8080 or [::1]/128:8080")
        ip_address(match["v4"] or match["v6"])
    return value


def _listeners(value: tuple[str, ...]) -> tuple[str, ...]:
    for listener in value:
        match = _LISTENER.fullmatch(listener)
        if match is None or int(match["port"]) > 65535:
            raise ValueError(f"{listener!r} is not like 127.0.0.1:50051")
    return value


def _like(pattern: re.Pattern[str], otherwise: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(otherwise)
        return value

    return AfterValidator(check)


def _store(value: str) -> str:
    if not value.startswith("file:") and not BUCKET.fullmatch(value):
        raise ValueError("must be file:PATH or s3://BUCKET/PREFIX")
    return value


Port = Annotated[int, Field(ge=1, le=65535)]
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())]
# As text they are separated by commas.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Roles = Annotated[tuple[Role, ...], NoDecode, BeforeValidator(_split)]
Places = Annotated[Names, AfterValidator(_places)]
Listeners = Annotated[Names, AfterValidator(_listeners)]
WebAddress = Annotated[str, _like(_WEB_ADDRESS, "must be like https://images.example.com, without a query")]
KeysAddress = Annotated[
    str, _like(_KEYS_ADDRESS, "must be like https://id.example.com/jwks; http is for loopback addresses only")
]
CollectorAddress = Annotated[
    str, _like(_COLLECTOR, "must be like http://127.0.0.1:4317 or https://collector.example.com:4317")
]
Device = Annotated[str, _like(_DEVICE, "must be auto, cpu, cuda or cuda:N")]
ObjectsAddress = Annotated[str, AfterValidator(_store)]
