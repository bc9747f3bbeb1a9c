"""A token for client credentials."""

from __future__ import annotations

from camserve_conformance.options import Options
from camserve_conformance.outcomes import BlockedError
from camserve_conformance.pace import Pace
from camserve_conformance.rest import Rest
from camserve_conformance.runner import CannotRunError


async def sign_in(options: Options) -> str:
    """Returns a token for the client of the options; raises CannotRunError when it is refused."""
    rest = Rest(options, Pace(1))
    form = {
        "grant_type": "client_credentials",
        "client_id": options.client_id,
        "client_secret": options.client_secret,
    }
    try:
        answer = await rest.request("POST", "/oauth2/token", token=None, data=form)
        return str(answer.need()["access_token"])
    except (BlockedError, KeyError, TypeError) as error:
        raise CannotRunError(f"the client gets no token: {error}") from error
    finally:
        await rest.close()
