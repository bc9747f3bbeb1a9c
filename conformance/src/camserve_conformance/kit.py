"""What a check works with: the deployment by one way, and what checks share."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.check import GRPC, REST
from camserve_conformance.native import Native
from camserve_conformance.options import Options
from camserve_conformance.outcomes import BlockedError
from camserve_conformance.pictures import picture
from camserve_conformance.receiver import Receiver
from camserve_conformance.rest import Rest
from camserve_conformance.routes import ROUTES

ENDED = ("succeeded", "failed", "canceled", "expired")
Made = list[tuple[str, dict[str, str]]]
# What the check that runs has made, as the operations that remove it: each check runs in a context of its own.
MADE: ContextVar[Made] = ContextVar("made")
_REMOVALS = {"storage_id": "DeleteUpload", "job_id": "CancelJob", "webhook_id": "DeleteWebhook"}
_MAKERS = ("Upload", "Presign", "Create", "Infer")


@dataclass
class Shared:
    """What all checks of a run share; `made` is what is removed at the end, not after each check."""

    options: Options
    rest: Rest
    native: Native | None
    receiver: Receiver | None
    remembered: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    made: Made = field(default_factory=list)


@dataclass(frozen=True)
class Kit:
    """The deployment as one check sees it: `way` is how `call` goes."""

    shared: Shared
    way: str

    @property
    def options(self) -> Options:
        """What the run was told."""
        return self.shared.options

    @property
    def rest(self) -> Rest:
        """The edge, for what is said over REST only."""
        return self.shared.rest

    @property
    def native(self) -> Native:
        """The gRPC port, for what is said over gRPC only; raises BlockedError without `--grpc`."""
        if not self.shared.native:
            raise BlockedError("no --grpc was given")
        return self.shared.native

    @property
    def receiver(self) -> Receiver:
        """Where events come in; raises BlockedError without `--receive`."""
        if not self.shared.receiver:
            raise BlockedError("no --receive was given")
        return self.shared.receiver

    def by(self, way: str) -> Kit:
        """Returns the same deployment by another way."""
        return Kit(self.shared, way)

    async def call(
        self,
        operation: str,
        fields: Mapping[str, Any] | None = None,
        *,
        token: str | None = "",
        key: str = "",
        headers: Mapping[str, str] | None = None,
        obeys_limits: bool = True,
    ) -> Answer:
        """Calls an operation with a message, over REST as JSON and as the parameters of path and query.

        `key` is the idempotency key. What the call makes is removed after the check.
        """
        named = dict(headers or {}) | ({"idempotency-key": key} if key else {})
        fields = dict(fields or {})
        if self.way == GRPC:
            answer = await self.native.call(operation, fields, token=token, metadata=named, obeys_limits=obeys_limits)
        else:
            route = ROUTES[operation]
            places = {name: value for name, value in fields.items() if f"{{{name}}}" in route.path}
            others = {name: value for name, value in fields.items() if name not in places}
            content = {"json": others} if route.has_body else {"params": others}
            answer = await self.rest.request(
                route.verb,
                route.path.format(**places),
                token=token,
                headers=named,
                obeys_limits=obeys_limits,
                **content,
            )
        self.note(operation, answer)
        return answer

    async def send(
        self,
        operation: str,
        data: bytes,
        media_type: str,
        fields: Mapping[str, Any] | None = None,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends an image as the body itself, over gRPC as a stream that declares its size; `fields` are the options."""
        named = dict(headers or {}) | ({"idempotency-key": key} if key else {})
        if self.way == GRPC:
            answer = await self.native.call(
                operation, {"size_bytes": len(data), **(fields or {})}, metadata=named, data=data, media_type=media_type
            )
        else:
            answer = await self.rest.request(
                "POST",
                ROUTES[operation].path,
                headers=named | {"content-type": media_type},
                content=data,
                params=dotted(fields or {}),
            )
        self.note(operation, answer)
        return answer

    def note(self, operation: str, answer: Answer) -> None:
        """Remembers what an answer says was made, to remove it after the check."""
        if operation.startswith(_MAKERS) and answer.ok and isinstance(answer.body, dict):
            for member, removal in _REMOVALS.items():
                if isinstance(answer.body.get(member), str):
                    MADE.get().append((removal, {member: answer.body[member]}))

    async def once(self, name: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """Returns what `make` made the first time that `name` was asked for by this way; its failure is everybody's."""
        key = f"{self.way} {name}"
        if key not in self.shared.remembered:
            context = copy_context()
            context.run(MADE.set, self.shared.made)
            self.shared.remembered[key] = asyncio.create_task(_begin(make), context=context)
        return await asyncio.shield(self.shared.remembered[key])

    async def model(self) -> str:
        """Returns the model to ask: `--model`, or the first one listed that has a version `stable` that is ready."""
        return str((await self.version())["model"])

    async def version(self) -> dict[str, Any]:
        """Returns the version `stable` of that model as it is listed, with `model` beside it."""
        return dict(await self.by(REST).once("version", self._version))

    async def _version(self) -> dict[str, Any]:
        for model in (await self.by(REST).call("ListModels")).need()["models"]:
            if self.options.model in ("", model["model"]):
                for version in model["versions"]:
                    if version["state"] == "ready" and "stable" in version["aliases"]:
                        return {"model": model["model"], **version}
        raise BlockedError(
            f"no model {self.options.model} is listed with a version `stable` that is ready".replace("  ", " ")
        )

    async def infer(self, name: str = "star.png", **fields: Any) -> Answer:
        """Classifies a picture that goes within the message."""
        return await self.call("Infer", {"model": await self.model(), "image": image(name), **fields})

    async def upload(self) -> dict[str, Any]:
        """Returns an upload that checks share."""

        async def make() -> Any:
            return (await self.send("UploadImage", picture("star.png"), "image/png")).need()

        return dict(await self.once("upload", make))

    async def create_job(self, inputs: list[dict[str, Any]], *, key: str = "", **fields: Any) -> Answer:
        """Asks for a job that is kept as short a time as there is."""
        message = {"model": await self.model(), "inputs": inputs, "ttl_hours": 1, **fields}
        return await self.call("CreateJob", message, key=key)

    async def ended(self, job_id: str) -> Answer:
        """Waits until a job has ended, and returns it."""
        pause_s = 0.05
        while True:
            answer = await self.call("GetJob", {"job_id": job_id})
            if answer.need()["status"] in ENDED:
                return answer
            await asyncio.sleep(pause_s)
            pause_s = min(2.0, 1.5 * pause_s)


async def _begin(make: Callable[[], Awaitable[Any]]) -> Any:
    return await make()


def image(name: str) -> dict[str, str]:
    """Returns the ImageInput that carries a picture."""
    return {"bytes": base64.b64encode(picture(name)).decode()}


def dotted(fields: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Returns the dotted names of options, with their values as the query has them."""
    flat: dict[str, str] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{before}{name}.")
        else:
            flat[before + name] = str(value).lower() if isinstance(value, bool) else str(value)
    return flat
