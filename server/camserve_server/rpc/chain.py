"""The chain that every call passes, outermost first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from camserve_server.base.audit_log import AuditLog
from camserve_server.base.dates import Dates
from camserve_server.core.admission import Admission
from camserve_server.core.counted import CountedNotes
from camserve_server.core.idempotency import Idempotency
from camserve_server.core.limits import Limits
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.core.open_calls import OpenCalls
from camserve_server.core.tokens import TokenVerifier
from camserve_server.rpc.call import Call, Interceptor
from camserve_server.rpc.interceptors.admission import admission
from camserve_server.rpc.interceptors.auth import auth, scopes
from camserve_server.rpc.interceptors.deprecation import deprecation
from camserve_server.rpc.interceptors.draining import Draining
from camserve_server.rpc.interceptors.errors import errors
from camserve_server.rpc.interceptors.headers import headers
from camserve_server.rpc.interceptors.idempotency import idempotency
from camserve_server.rpc.interceptors.open_calls import open_calls
from camserve_server.rpc.interceptors.parse import parse
from camserve_server.rpc.interceptors.patience import patience
from camserve_server.rpc.interceptors.rate import rate
from camserve_server.rpc.interceptors.route import route
from camserve_server.rpc.interceptors.telemetry import telemetry
from camserve_server.rpc.interceptors.validate import validate
from camserve_server.rpc.signing_again import SigningAgain
from camserve_server.rpc.tus import tus


def build_chain(
    audit: AuditLog,
    verifier: TokenVerifier,
    draining: Draining,
    limits: Limits,
    notes: CountedNotes,
    counts: OpenCalls,
    keys: Idempotency,
    sign_again: SigningAgain,
    routes: ModelRoutes,
    admissions: Admission,
    refuse_early: Callable[[Call], None],
    *,
    upload_idle_s: float,
    deprecated: Mapping[str, Dates],
) -> tuple[Interceptor, ...]:
    """Returns the links in the order in which a call meets them."""
    return (
        telemetry(audit),  # sees the final code of every call, refused ones too
        errors,  # everything below may raise ApiError
        deprecation(deprecated),  # refusals say it too
        headers,  # sent only when nothing below can fail any more
        draining,  # a stopping replica takes no new work, whoever asks
        auth(verifier),  # before any byte of the request is read
        rate(limits, notes),  # whatever a tenant sends counts, refused or not
        open_calls(counts),  # before the first wait for a caller
        scopes,  # what the caller may not do is not looked at
        patience(upload_idle_s, counts),  # no message is waited for without end
        parse,  # nothing is read for strangers
        tus,  # its headers are fields to what follows
        validate,  # servicers see only requests that keep the rules
        idempotency(keys, sign_again),  # a refusal above has nothing to remember
        route(routes),  # once: an answer that is given again keeps the version that gave it
        admission(admissions, refuse_early),  # last: an answer that is given again costs nothing
    )
