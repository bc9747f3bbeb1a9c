"""A replica that does what a test tells it: the edge's other side, faults included."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from camserve.v1 import auth_pb2, inference_pb2, models_pb2
from camserve_server.base.errors import CATALOGUE, Reason
from envoy_ratelimit import rls_pb2

KEYS_PATH = "/camserve.v1.AuthService/GetJwks"
LIMITS_PATH = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"


@dataclass
class Call:
    """One call as it arrived."""

    path: str
    metadata: dict[str, str]
    context: grpc.ServicerContext
    messages: list[bytes] = field(default_factory=list)

    def fail(self, reason: Reason, *, late: bool = False, **headers: str) -> None:
        """Ends the call as the server does; `late` sends headers first, so that the status comes in trailers."""
        entry = CATALOGUE[reason]
        if late:
            self.context.send_initial_metadata((("x-early", "1"),))
        error = {"type": entry.type, "code": reason.value, "message": entry.message, "status": entry.status}
        body = json.dumps({"error": {**error, "request_id": self.metadata["x-request-id"]}})
        trailers = [("x-http-status", str(entry.status)), ("x-error-json", body)]
        if entry.retry_after_s:
            trailers.append(("retry-after", str(entry.retry_after_s)))
        trailers += [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.context.set_trailing_metadata(tuple(trailers))
        self.context.abort(grpc.StatusCode[entry.grpc], entry.message)


Answer = Callable[[Call], Iterator[Message]]
Limit = Callable[[dict[str, str]], rls_pb2.RateLimitResponse]

_DEFAULTS: dict[str, Message] = {
    "/camserve.v1.InferenceService/Infer": inference_pb2.InferResponse(),
    "/camserve.v1.InferenceService/InferUpload": inference_pb2.InferResponse(),
    "/camserve.v1.ModelService/ListModels": models_pb2.ListModelsResponse(),
    "/camserve.v1.ModelService/GetModel": models_pb2.Model(),
}


class Replica(grpc.GenericRpcHandler):
    """Serves every method with `answer`, keeps what it received, and publishes the keys of `sign`.

    As rate limiter it answers with `limit`, which is told what is known of a request; without it nobody is limited.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.received: list[Call] = []
        self.answer: Answer | None = None
        self.limit: Limit | None = None
        self.has_keys = True
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 1 << 20)])
        self.health = health.HealthServicer()
        self.health.set("live", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self._server.add_generic_rpc_handlers((self,))
        address = "127.0.0.1:0"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def set_serving(self, serving: bool) -> None:
        state = health_pb2.HealthCheckResponse
        self.health.set("", state.SERVING if serving else state.NOT_SERVING)

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "k1"})

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        path = details.method
        if path == LIMITS_PATH:
            return grpc.unary_unary_rpc_method_handler(
                self._limit,
                request_deserializer=rls_pb2.RateLimitRequest.FromString,
                response_serializer=rls_pb2.RateLimitResponse.SerializeToString,
            )
        if not path.startswith("/camserve.v1."):
            return None
        metadata = {str(key): str(value) for key, value in details.invocation_metadata}

        def serve(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            if path == KEYS_PATH:
                if not self.has_keys:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "no keys")
                yield self._keys().SerializeToString()
                return
            call = Call(path, metadata, context)
            self.received.append(call)
            call.messages.extend(messages)
            answer = self.answer or (lambda call: iter([_DEFAULTS[call.path]]))
            for message in answer(call):
                yield message.SerializeToString()

        return grpc.stream_stream_rpc_method_handler(serve)

    def _limit(self, request: rls_pb2.RateLimitRequest, context: grpc.ServicerContext) -> rls_pb2.RateLimitResponse:
        (descriptor,) = request.descriptors
        facts = {entry.key: entry.value for entry in descriptor.entries}
        if self.limit is None:
            return rls_pb2.RateLimitResponse(overall_code=rls_pb2.RateLimitResponse.OK)
        return self.limit(facts)

    def _keys(self) -> auth_pb2.GetJwksResponse:
        public = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        names = ("kty", "crv", "x", "y")
        return auth_pb2.GetJwksResponse(
            keys=[auth_pb2.Jwk(kid="k1", use="sig", alg="ES256", **{name: public[name] for name in names})]
        )
