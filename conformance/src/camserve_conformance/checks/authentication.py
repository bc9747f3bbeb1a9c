"""Section 3: who is let in."""

from __future__ import annotations

import base64
import hmac
import json
import time
from uuid import uuid4

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, Section
from camserve_conformance.kit import Kit
from camserve_conformance.outcomes import SkippedError
from camserve_conformance.shapes import INT32, STRING, expect_shape

section = Section("auth", "3. Authentication")

_ALGORITHMS = {"RS256", "ES256", "EdDSA"}
_PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "k"}
_DAY_S, _SKEW_S = 86400, 10


def _parts(kit: Kit) -> list[str]:
    parts = kit.options.token.split(".")
    if len(parts) != 3:
        raise SkippedError("the token is no JWT in three parts")
    return parts


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _value(part: str) -> dict[str, object]:
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


@section.check("A call without a token is 401 auth.missing_token.", ways=BOTH)
async def missing_token(kit: Kit) -> None:
    (await kit.call("GetLimits", token=None)).expect_refusal("auth.missing_token")


@section.check("A token that is none is 401 auth.invalid_token.", ways=BOTH)
async def invalid_token(kit: Kit) -> None:
    (await kit.call("GetLimits", token="not.a.token")).expect_refusal("auth.invalid_token")


@section.check("A token whose signature was altered is refused.", ways=BOTH)
async def altered_signature(kit: Kit) -> None:
    head, body, signature = _parts(kit)
    altered = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    _expect_unknown(await kit.call("GetLimits", token=f"{head}.{body}.{altered}"))


@section.check("A token whose claims were altered is refused.", ways=BOTH)
async def altered_claims(kit: Kit) -> None:
    head, body, signature = _parts(kit)
    claims = _part({**_value(body), "tenant": "camserve-conformance"})
    _expect_unknown(await kit.call("GetLimits", token=f"{head}.{claims}.{signature}"))


@section.check("A token without a signature (alg none) is refused.", ways=BOTH)
async def no_algorithm(kit: Kit) -> None:
    head, body, _ = _parts(kit)
    unsigned = _part({**_value(head), "alg": "none"})
    _expect_unknown(await kit.call("GetLimits", token=f"{unsigned}.{body}."))


@section.check("A token signed by HMAC with the published key is refused: RS256, ES256 and EdDSA only.", ways=BOTH)
async def symmetric(kit: Kit) -> None:
    head, body, _ = _parts(kit)
    published = (await kit.rest.request("GET", "/.well-known/jwks.json", token=None)).content
    signed = f"{_part({**_value(head), 'alg': 'HS256'})}.{body}"
    digest = hmac.digest(published, signed.encode(), "sha256")
    signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    _expect_unknown(await kit.call("GetLimits", token=f"{signed}.{signature}"))


def _expect_unknown(answer: Answer) -> None:
    answer.expect_equal("the status", answer.status, 401, "UNAUTHENTICATED")


@section.check("An expired token is 401 auth.token_expired.", ways=BOTH, needs=("expired_token",))
async def expired_token(kit: Kit) -> None:
    (await kit.call("GetLimits", token=kit.options.expired_token)).expect_refusal("auth.token_expired")


@section.check("A token without the call's scope is 401 auth.scope_insufficient.", ways=BOTH, needs=("narrow_token",))
async def scope(kit: Kit) -> None:
    (await kit.call("ListModels", token=kit.options.narrow_token)).expect_refusal("auth.scope_insufficient")


@section.check("A token with the call's scope and no other is enough.", ways=BOTH, needs=("narrow_token",))
async def enough_scope(kit: Kit) -> None:
    answer = await kit.call("ListJobs", {"limit": 1}, token=kit.options.narrow_token)
    answer.expect(answer.ok, f"a token with jobs.read cannot list jobs: {answer.status} {answer.code}")


@section.check("A token in the query is none.")
async def token_in_query(kit: Kit) -> None:
    named = {"access_token": kit.options.token}
    answer = await kit.rest.request("GET", "/v1/limits", token=None, params=named)
    answer.expect(answer.status in (400, 401), f"a token in the query was taken: {answer.status}")


@section.check("A token in a cookie is none.")
async def token_in_cookie(kit: Kit) -> None:
    cookie = {"cookie": f"access_token={kit.options.token}; Authorization=Bearer {kit.options.token}"}
    answer = await kit.rest.request("GET", "/v1/limits", token=None, headers=cookie)
    answer.expect_equal("the status", answer.status, 401)


@section.check("A token in the body is none.")
async def token_in_body(kit: Kit) -> None:
    form = {"access_token": kit.options.token}
    answer = await kit.rest.request("POST", "/v1/webhooks", token=None, data=form)
    answer.expect_equal("the status", answer.status, 401)


@section.check("The token's claims are iss, aud, exp at most 24 h ahead, sub, tenant, and scope or scp.")
async def claims(kit: Kit) -> None:
    answer = await kit.rest.request("GET", "/v1/limits")
    answer.need()
    said = _value(_parts(kit)[1])
    missing = {"iss", "aud", "exp", "sub"} - said.keys()
    answer.expect(not missing, f"a token without {', '.join(sorted(missing))} was taken")
    answer.expect("scope" in said or "scp" in said, "a token without scope or scp was taken")
    ahead_s = float(str(said["exp"])) - time.time()
    answer.expect(ahead_s <= _DAY_S + _SKEW_S, f"a token that expires in {ahead_s:.0f} s was taken")


@section.check("The published keys are for RS256, ES256 or EdDSA, and public.", ways=BOTH)
async def keys(kit: Kit) -> None:
    answer = await kit.call("GetJwks", token=None)
    expect_shape(answer, answer.need(), {"keys": [{"kty": STRING, "kid": STRING}]})
    for key in answer.body["keys"]:
        answer.expect(key.get("alg") in _ALGORITHMS, f"a key is for {key.get('alg')!r}")
        answer.expect(not _PRIVATE & key.keys(), "a key has private members")


async def _issue(kit: Kit, *, basic: bool = False, **form: str) -> Answer:
    said = {"grant_type": "client_credentials", **form}
    headers = {}
    if basic:
        pair = f"{kit.options.client_id}:{kit.options.client_secret}".encode()
        headers = {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return await kit.rest.request("POST", "/oauth2/token", token=None, headers=headers, data=said)


_TOKEN = {"access_token": STRING, "token_type": STRING, "expires_in": INT32}


@section.check("POST /oauth2/token takes client credentials as HTTP Basic.", needs=("client",))
async def issue_basic(kit: Kit) -> None:
    answer = await _issue(kit, basic=True)
    answer.expect(answer.status == 200, f"the client got no token: {answer.status}")


@section.check("POST /oauth2/token takes client credentials in the form.", needs=("client",))
async def issue_form(kit: Kit) -> None:
    answer = await _issue(kit, client_id=kit.options.client_id, client_secret=kit.options.client_secret)
    answer.expect(answer.status == 200, f"the client got no token: {answer.status}")


@section.check("The answer is that of RFC 6749: access_token, token_type Bearer, expires_in.", needs=("client",))
async def issued(kit: Kit) -> None:
    answer = await _issue(kit, client_id=kit.options.client_id, client_secret=kit.options.client_secret)
    expect_shape(answer, answer.need(), _TOKEN)
    answer.expect_equal("token_type", answer.body["token_type"].lower(), "bearer")


@section.check("An issued token is taken.", needs=("client",))
async def issued_works(kit: Kit) -> None:
    token = (await _issue(kit, basic=True)).need()["access_token"]
    answer = await kit.call("GetLimits", token=token)
    answer.expect(answer.ok, f"an issued token was refused: {answer.status} {answer.code}")


@section.check("The answer is not cached (RFC 6749 section 5.1).", needs=("client",))
async def issued_uncached(kit: Kit) -> None:
    answer = await _issue(kit, basic=True)
    answer.need()
    value = answer.headers.get("cache-control", "")
    answer.expect("no-store" in value, f"Cache-Control is {value!r}, without no-store")


@section.check("A client that is not known is invalid_client (RFC 6749 section 5.2).")
async def unknown_client(kit: Kit) -> None:
    # A name of this run's own: how often one was wrong before is counted for each.
    answer = await _issue(kit, client_id=f"client_{uuid4().hex[:20]}", client_secret="wrong")
    answer.expect_equal("the status", answer.status, 400, 401)
    answer.expect_equal("error", (answer.body or {}).get("error"), "invalid_client")


@section.check("Another grant is unsupported_grant_type (RFC 6749 section 5.2).")
async def other_grant(kit: Kit) -> None:
    answer = await _issue(kit, grant_type="password", username="a", password="b")
    answer.expect_equal("the status", answer.status, 400)
    answer.expect_equal("error", (answer.body or {}).get("error"), "unsupported_grant_type")


@section.check("Scopes that the client has not are invalid_scope (RFC 6749 section 5.2).", needs=("client",))
async def other_scope(kit: Kit) -> None:
    answer = await _issue(kit, basic=True, scope="camserve.conformance")
    answer.expect_equal("the status", answer.status, 400)
    answer.expect_equal("error", (answer.body or {}).get("error"), "invalid_scope")


@section.check("Fewer scopes may be asked for.", needs=("client",))
async def narrower(kit: Kit) -> None:
    token = (await _issue(kit, basic=True, scope="jobs.read")).need()["access_token"]
    answer = await kit.call("ListModels", token=token)
    answer.expect_equal("the error's code", answer.code, "auth.scope_insufficient")
