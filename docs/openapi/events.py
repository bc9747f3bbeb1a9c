"""What the service itself sends: events about jobs, to webhooks and callback URLs."""

from __future__ import annotations

from typing import Any

from docs.openapi import examples

Node = dict[str, Any]

_DELIVERED = "The event is delivered; any other status of 2xx says the same."
_TEXT = {"type": "string"}


def webhooks() -> Node:
    """Returns the part of the document that receivers of events implement."""
    return {
        "jobEvent": {
            "post": {
                "operationId": "receiveJobEvent",
                "tags": ["Webhook"],
                "summary": "Tells a receiver of yours that a job has ended",
                "description": "Comes at least once, to every webhook that asked for the event and to the job's "
                "`callback_url`. Refuse what is older than 300 seconds or has no signature that fits; expect the same "
                "`X-Event-Id` again.",
                "security": [],
                "parameters": [_header(name, *rest) for name, *rest in _HEADERS],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/JobEnded"}, "example": _example()}
                    },
                },
                "responses": {
                    "204": {"description": _DELIVERED},
                    "410": {"description": "Nothing more is sent to this webhook until a delivery to it succeeds."},
                    "429": {"description": "Is tried again, not before `Retry-After`."},
                    "503": {"description": "Is tried again, not before `Retry-After`."},
                    "default": {
                        "description": "Is tried again, 8 times in all over about a day. A redirect is not followed."
                    },
                },
            }
        }
    }


def components() -> dict[str, Node]:
    """Returns the schema of an event."""
    count = {"type": "integer", "minimum": 0}
    properties: dict[str, Node] = {
        "event": {
            "type": "string",
            "enum": ["job.succeeded", "job.failed", "job.canceled", "job.expired", "webhook.test"],
            "description": "Names the event.",
        },
        "job_id": {**_TEXT, "description": "Identifies the job."},
        "status": {
            "type": "string",
            "enum": ["succeeded", "failed", "canceled", "expired"],
            "description": "States how the job ended.",
        },
        "items_succeeded": {**count, "description": "Counts the images that were classified."},
        "items_failed": {**count, "description": "Counts the images that were not."},
        "results_url": {**_TEXT, "format": "uri", "description": "Leads to the results; asking needs a token."},
        "link_to_results": {**_TEXT, "format": "uri", "description": "Is the same as `results_url`."},
        "metadata": {"type": "object", "description": "Is what the job's request said, `{}` when it said nothing."},
    }
    return {
        "JobEnded": {
            "type": "object",
            "description": "Tells that a job has ended.",
            "required": list(properties),
            "properties": properties,
        }
    }


_SIGNATURE = "sha256=5d1c0a2d4b1f7d3c1f0f9a3f2f7f3f9e6f8c1b0a9d8e7f6a5b4c3d2e1f001122"
_HEADERS: tuple[tuple[str, str, str], ...] = (
    ("X-Event-Id", "Identifies the event, the same in every attempt.", examples.IDS["event_id"]),
    ("X-Timestamp", "Is the time of this attempt, in seconds since 1970.", "1795475251"),
    (
        "X-Signature",
        "Is the HMAC-SHA256 of `{X-Event-Id}.{X-Timestamp}.{raw body}`, in hex, under the bytes for which the base64 "
        "of the secret after `whsec_` stands. Several, apart by commas, while a secret rotates.",
        _SIGNATURE,
    ),
    ("webhook-id", "Is the same as `X-Event-Id`, for libraries for Standard Webhooks.", examples.IDS["event_id"]),
    ("webhook-timestamp", "Is the same as `X-Timestamp`.", "1795475251"),
    (
        "webhook-signature",
        "Is the signature as Standard Webhooks has it.",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    ),
)


def _header(name: str, description: str, example: str) -> Node:
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": _TEXT,
        "example": example,
    }


def _example() -> Node:
    results = f"http://127.0.0.1:8080/v1/jobs/{examples.IDS['job_id']}/results"
    return {
        "event": "job.succeeded",
        "job_id": examples.IDS["job_id"],
        "status": "succeeded",
        "items_succeeded": 9,
        "items_failed": 1,
        "results_url": results,
        "link_to_results": results,
        "metadata": {"order": 7},
    }
