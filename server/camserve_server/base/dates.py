"""When something of the API ends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _with_zone(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_with_zone)]


class Dates(BaseModel):
    """When something ends, and a page about it; a day is its first moment, and times without a zone are UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deprecated_at: Moment
    sunset_at: Moment | None = None
    # Without what would end it in the header `Link`.
    link: Annotated[str, Field(pattern=r"^https?://[!#-;=?-~]+$", max_length=512)] | None = None
