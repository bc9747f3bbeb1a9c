"""What signed links lead to."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from urllib.parse import parse_qs, urlsplit

import aiohttp
from yarl import URL

from camserve_client.address import proxy_of
from camserve_client.calls import Calls
from camserve_client.errors import CONNECTION_FAILED, CamserveError, timed_out
from camserve_client.gen import methods, objects_pb2
from camserve_client.heatmap import Heatmap
from camserve_client.refusals import of_http
from camserve_client.retry import Tries

_OBJECT = re.compile(r"/v1/objects/(obj_[0-9A-Za-z]{16,40})$")


async def fetched(calls: Calls, heatmap: Heatmap) -> Heatmap:
    """Returns the heatmap with its data; raises CamserveError when the link has ended (signature.expired)."""
    if heatmap.data is not None or heatmap.url is None:
        return heatmap
    parts = urlsplit(heatmap.url)
    named = _OBJECT.search(parts.path)
    token = parse_qs(parts.query).get("token")
    if named and token:
        # Over the connection that there is: over gRPC nothing says that the link's own address can be reached.
        request = objects_pb2.DownloadRequest(object_id=named[1], token=token[0])
        messages = await calls.collected(methods.DOWNLOAD, request)
        data = b"".join(message.data for message in messages)
    else:
        async with calls.lifetime.waiting():
            data = await calls.retries.run(
                lambda tries: _read(heatmap.url or "", tries), timeout_s=calls.timeout_s, repeatable=True
            )
    return dataclasses.replace(heatmap, data=data)


async def _read(url: str, tries: Tries) -> bytes:
    """Reads from the object store itself, which is another server and hears nothing of the caller's token."""
    try:
        async with asyncio.timeout(tries.left_s), aiohttp.ClientSession(proxy=proxy_of(url)) as http:
            # As it is: the signature covers the address.
            async with http.get(URL(url, encoded=True), allow_redirects=False) as response:
                body = await response.read()
    except aiohttp.ClientError as error:
        raise CamserveError(CONNECTION_FAILED, f"The connection failed: {type(error).__name__}.") from error
    except TimeoutError:
        raise timed_out(None) from None
    if response.status != 200:
        raise of_http(response.status, response.headers, body)
    return body
