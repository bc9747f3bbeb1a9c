"""What Schemathesis cannot know: images, links that were handed out, a model that is there, the address of nobody."""

from __future__ import annotations

import base64
import re
from itertools import cycle
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation
from tests.images import encoded, star_png

_IMAGES = {
    "image/png": star_png(),
    "image/jpeg": encoded(fmt="JPEG"),
    "image/tiff": encoded(fmt="TIFF"),
    "image/bmp": encoded(fmt="BMP"),
}
_BYTES = ("application/octet-stream", "application/offset+octet-stream")
# No resolver knows a name of this domain (RFC 2606), so that no event and no fetch reaches anybody.
_NOBODY = "https://nobody.invalid/"
_KEY = re.compile("[!-~]{1,255}")
_OF_MODELS = ("/v1/infer", "/v1/infer:batch", "/v1/jobs")

for _kind, _image in _IMAGES.items():
    schemathesis.openapi.media_type(_kind, st.sampled_from([_image, _image[: len(_image) // 2], b""]))
for _kind in _BYTES:
    schemathesis.openapi.media_type(_kind, st.one_of(st.sampled_from(list(_IMAGES.values())), st.binary(max_size=64)))

# Links that were handed out, newest last: those to read from, and those to write to.
_links: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
_turns = cycle((True, True, False))


@schemathesis.serializer(*_IMAGES, *_BYTES)
def _raw(context: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.deserializer("image/png", "application/x-npy", "application/octet-stream")
def _as_text(context: Any, response: Any) -> Any:
    return base64.b64encode(response.content).decode()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Keeps what is sent within this machine, and leads most of what is well formed to where it may succeed."""
    case.body = _to_nobody(case.body)
    if case.method == "QUERY":
        # Envoy knows this verb, and that its requests have a body.
        case.headers = {**(case.headers or {}), "Content-Type": "application/json"}
    if case.headers and _KEY.fullmatch(str(case.headers.get("Idempotency-Key", ""))):
        # One that was used before would be answered as before, although what was made may be gone.
        case.headers["Idempotency-Key"] = str(uuid4())
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.path == "/v1/infer" and case.media_type == "application/json":
        # What stands in the query beside a JSON body must not stand in both.
        case.query = {}
    if not next(_turns):
        return
    links = _links[case.method == "PUT"]
    if case.path == "/v1/objects/{object_id}" and links:
        object_id, token = links[-1]
        case.path_parameters = {**case.path_parameters, "object_id": object_id}
        case.query = {**case.query, "token": token}
    if case.path in _OF_MODELS and isinstance(case.body, dict):
        case.body = _of_shapes(case.body)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Notes links, so that they are followed."""
    if case.path not in ("/v1/infer", "/v1/uploads:presign") or response.status_code >= 300:
        return
    body = response.json()
    link = body.get("upload_url") or body.get("heatmap", {}).get("url")
    if link:
        url = urlsplit(link)
        _links["upload_url" in body].append((url.path.rpartition("/")[2], parse_qs(url.query)["token"][0]))


@schemathesis.check
def wrong_paths_and_queries_are_refused(context: Any, response: Any, case: Any) -> None:
    """Asks of paths and queries what `negative_data_rejection` asks of all, of lenient JSON and foreign headers too."""
    if case.meta is None:
        return
    wrong = {place for place, part in case.meta.components.items() if part.mode.is_negative}
    # A parameter without a name is none to Envoy, and one without a value says nothing to protobuf.
    query = dict(case.query or {})
    if wrong and wrong <= {ParameterLocation.PATH, ParameterLocation.QUERY} and "" not in [*query, *query.values()]:
        assert response.status_code >= 400, f"{case.formatted_path} with {case.query} was answered"


def _to_nobody(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_nobody(each) for each in value]
    if isinstance(value, dict):
        return {
            key: _NOBODY if key in ("url", "callback_url") and isinstance(each, str) and each else _to_nobody(each)
            for key, each in value.items()
        }
    return value


def _of_shapes(body: dict[str, Any]) -> dict[str, Any]:
    changed = {**body, "model": "shapes", "model_version": "stable"}
    if "inputs" not in body:
        return _drawable(changed)
    return {**changed, "inputs": [{**_drawable(each), "id": str(i)} for i, each in enumerate(body["inputs"])]}


def _drawable(asked: dict[str, Any]) -> dict[str, Any]:
    """Returns what is asked of one image, of one that there is, and of a layer and a class that there are."""
    changed = {**asked, "image": {"bytes": base64.b64encode(star_png()).decode()}}
    if isinstance(asked.get("grad_cam"), dict):
        changed["grad_cam"] = {**asked["grad_cam"], "layer": "auto", "target": "star"}
    return changed
