"""Calls as everything above makes them: with a token, under a key, and again when that may help."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from uuid import uuid4

from camserve_client.auth import Tokens
from camserve_client.errors import ANSWER_INVALID, CamserveError
from camserve_client.lifetime import Lifetime
from camserve_client.method import A, Method, Q
from camserve_client.retry import Retries, Tries
from camserve_client.transport import Answer, Piece, Sending, Transport

_KEY = re.compile(r"[!-~]{1,255}")
_STALE = ("auth.token_expired", "auth.invalid_token")


@dataclass(frozen=True, slots=True)
class Calls:
    """Makes calls over one transport; `timeout_s` is the time of a call with all its attempts."""

    transport: Transport
    tokens: Tokens
    retries: Retries
    timeout_s: float

    @property
    def lifetime(self) -> Lifetime:
        """Ends when the client is closed."""
        return self.retries.lifetime

    async def unary(
        self,
        method: Method[Q, A],
        request: Q,
        *,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer[A]:
        """Returns the answer. A write is made under `key`, or under one made here, so that it may be repeated."""
        fixed = _fixed(method, key)

        async def attempt(tries: Tries) -> Answer[A]:
            try:
                return await self._authorized(
                    method, fixed, tries, lambda sending: self.transport.unary(method, request, sending)
                )
            except CamserveError as error:
                if not (tries.again and error.status == 404 and _removes(method)):
                    raise
                # An attempt before this one did it, and its answer was lost.
                return Answer(method.response(), {})

        return await self.retries.run(
            attempt,
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            repeatable=method.repeatable or method.keyed,
        )

    async def upload(
        self,
        method: Method[Q, A],
        request: Callable[[], Q],
        piece: Callable[[], Piece],
        *,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer[A]:
        """Streams bytes and returns the answer; request and piece are made anew for every attempt."""
        fixed = _fixed(method, key)
        return await self.retries.run(
            lambda tries: self.upload_once(method, request, piece, tries, fixed),
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            repeatable=method.repeatable or method.keyed,
        )

    async def upload_once(
        self,
        method: Method[Q, A],
        request: Callable[[], Q],
        piece: Callable[[], Piece],
        tries: Tries,
        headers: dict[str, str] | None = None,
    ) -> Answer[A]:
        """Streams bytes in a single attempt."""
        return await self._authorized(
            method, headers or {}, tries, lambda sending: self.transport.upload(method, request(), piece(), sending)
        )

    async def stream(self, method: Method[Q, A], request: Q, *, timeout_s: float | None = None) -> AsyncGenerator[A]:
        """Yields the messages of a single attempt, which may take that long in all; None is without end."""
        tries = self.retries.started(timeout_s)
        for last in (False, True):
            token = None if method.public else await self.tokens.token(tries.left_s)
            began = False
            try:
                async with aclosing(
                    self.transport.stream(method, request, _sending({}, token, tries.left_s))
                ) as messages:
                    async for message in messages:
                        began = True
                        yield message
                return
            except CamserveError as error:
                if last or began or not self._renewable(error, token):
                    raise

    async def collected(self, method: Method[Q, A], request: Q) -> list[A]:
        """Returns all messages of a short stream, which may be read again from its beginning."""

        async def attempt(tries: Tries) -> list[A]:
            async with aclosing(self.stream(method, request, timeout_s=tries.left_s)) as messages:
                return [message async for message in messages]

        return await self.retries.run(attempt, timeout_s=self.timeout_s, repeatable=method.repeatable)

    async def _authorized(
        self,
        method: Method[Q, A],
        headers: dict[str, str],
        tries: Tries,
        attempt: Callable[[Sending], Awaitable[Answer[A]]],
    ) -> Answer[A]:
        """Makes an attempt with a token, and one more where that had ended and another can be had."""
        token = None if method.public else await self.tokens.token(tries.left_s)
        try:
            return _complete(await attempt(_sending(headers, token, tries.left_s)))
        except CamserveError as error:
            if not self._renewable(error, token):
                raise
        token = await self.tokens.token(tries.left_s)
        return _complete(await attempt(_sending(headers, token, tries.left_s)))

    def _renewable(self, error: CamserveError, token: str | None) -> bool:
        return error.code in _STALE and token is not None and self.tokens.refused(token)


def _removes(method: Method[Q, A]) -> bool:
    return method.verb == "DELETE" and not method.response.DESCRIPTOR.fields


def _complete(answer: Answer[A]) -> Answer[A]:
    """Returns the answer; raises CamserveError(answer.invalid) where it lacks what the service always says."""
    message = answer.message
    for field in message.DESCRIPTOR.fields:
        # An answer begins with the id, the name or the status of what it is about, a list has a page.
        named = field.index == 0 and field.type in (field.TYPE_STRING, field.TYPE_ENUM) and not field.is_repeated
        if (named and not getattr(message, field.name)) or (field.name == "page" and not message.HasField("page")):
            raise CamserveError(ANSWER_INVALID, "The answer is not of the expected form.")
    return answer


def _fixed(method: Method[Q, A], key: str | None) -> dict[str, str]:
    """Returns the headers that are the same in every attempt."""
    if key is not None and not _KEY.fullmatch(key):
        # Said here: what no header can carry would never come to the service.
        raise CamserveError("idempotency.key_invalid", "A key is 1 to 255 visible ASCII characters.", status=400)
    return {"idempotency-key": str(uuid4()) if key is None else key} if method.keyed else {}


def _sending(headers: dict[str, str], token: str | None, timeout_s: float | None) -> Sending:
    return Sending({**headers, "authorization": f"Bearer {token}"} if token else headers, timeout_s)
