"""AWS Signature Version 4: requests to S3 that need no other proof, such as links that bind what may be sent."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key; `token` is there for one that ends by itself."""

    key_id: str
    secret: str
    token: str | None = None


def presigned(
    method: str,
    url: str,
    credentials: Credentials,
    *,
    region: str,
    now: float,
    expires_s: int,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> str:
    """Returns a URL for one kind of request, valid for `expires_s` seconds (at most 604,800) from `now`.

    Whoever uses it must send `headers` as they are. The steps are those of "Authenticating Requests: Using Query
    Parameters" in the API reference of Amazon S3.
    """
    parts = urlsplit(url)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    signed = {name.lower(): value.strip() for name, value in (headers or {}).items()} | {"host": parts.netloc}
    asked = dict(query or {}) | {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{credentials.key_id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(expires_s),
        "X-Amz-SignedHeaders": ";".join(sorted(signed)),
    }
    if credentials.token:
        asked["X-Amz-Security-Token"] = credentials.token
    request = canonical_request(method, parts.path or "/", asked, signed, _UNSIGNED)
    text = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(asked.items()))
    return f"{parts.scheme}://{parts.netloc}{parts.path or '/'}?{text}&X-Amz-Signature=" + signature(
        request, credentials.secret, scope=scope, stamp=stamp
    )


def canonical_request(
    method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], payload_hash: str
) -> str:
    """Returns the text that stands for a request; `path` is quoted, names of `headers` are in lower case."""
    names = sorted(headers)
    pairs = sorted((_quoted(name), _quoted(value)) for name, value in query.items())
    return "\n".join(
        [
            method,
            path,
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{headers[name]}" for name in names),
            "",
            ";".join(names),
            payload_hash,
        ]
    )


def signature(request: str, secret: str, *, scope: str, stamp: str) -> str:
    """Returns the signature of a canonical request, in hex; `scope` is `date/region/service/aws4_request`."""
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}".encode(), "sha256").hex()


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
