"""The surface of the contract: section 1, row by row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """One row: the RPC's service, its verb and path over REST, the scope it asks for and the status of its success."""

    service: str
    verb: str
    path: str
    scope: str | None
    success: int
    has_body: bool = False

    @property
    def public(self) -> bool:
        """Whether the route is open to callers without a token."""
        return self.scope is None


READ, WRITE = "inference.read", "inference.write"
JOBS_READ, JOBS_WRITE = "jobs.read", "jobs.write"
HOOKS_READ, HOOKS_WRITE = "webhooks.read", "webhooks.write"
ANY_TOKEN = ""

ROUTES = {
    "GetHealth": Route("HealthService", "GET", "/v1/health", None, 200),
    "ListModels": Route("ModelService", "GET", "/v1/models", READ, 200),
    "GetModel": Route("ModelService", "GET", "/v1/models/{model}", READ, 200),
    "GetLabelMapping": Route("ModelService", "GET", "/v1/models/{model}/labels", READ, 200),
    "Infer": Route("InferenceService", "POST", "/v1/infer", WRITE, 200, has_body=True),
    "InferUpload": Route("InferenceService", "POST", "/v1/infer", WRITE, 200, has_body=True),
    "InferBatch": Route("InferenceService", "POST", "/v1/infer:batch", WRITE, 200, has_body=True),
    "CreateJob": Route("JobService", "POST", "/v1/jobs", JOBS_WRITE, 202, has_body=True),
    "ListJobs": Route("JobService", "GET", "/v1/jobs", JOBS_READ, 200),
    "GetJob": Route("JobService", "GET", "/v1/jobs/{job_id}", JOBS_READ, 200),
    "ListJobResults": Route("JobService", "GET", "/v1/jobs/{job_id}/results", JOBS_READ, 200),
    "WatchJob": Route("JobService", "GET", "/v1/jobs/{job_id}/events", JOBS_READ, 200),
    "CancelJob": Route("JobService", "DELETE", "/v1/jobs/{job_id}", JOBS_WRITE, 200),
    "UploadImage": Route("UploadService", "POST", "/v1/uploads", WRITE, 201, has_body=True),
    "PresignUpload": Route("UploadService", "POST", "/v1/uploads:presign", WRITE, 201, has_body=True),
    "GetUpload": Route("UploadService", "GET", "/v1/uploads/{storage_id}", READ, 200),
    "DeleteUpload": Route("UploadService", "DELETE", "/v1/uploads/{storage_id}", WRITE, 204),
    "Download": Route("ObjectService", "GET", "/v1/objects/{object_id}", None, 200),
    "CreateWebhook": Route("WebhookService", "POST", "/v1/webhooks", HOOKS_WRITE, 201, has_body=True),
    "ListWebhooks": Route("WebhookService", "GET", "/v1/webhooks", HOOKS_READ, 200),
    "GetWebhook": Route("WebhookService", "GET", "/v1/webhooks/{webhook_id}", HOOKS_READ, 200),
    "DeleteWebhook": Route("WebhookService", "DELETE", "/v1/webhooks/{webhook_id}", HOOKS_WRITE, 204),
    "TestWebhook": Route("WebhookService", "POST", "/v1/webhooks/{webhook_id}:test", HOOKS_WRITE, 202),
    "RotateWebhookSecret": Route("WebhookService", "POST", "/v1/webhooks/{webhook_id}:rotate", HOOKS_WRITE, 200),
    "ListDeliveries": Route("WebhookService", "GET", "/v1/webhooks/{webhook_id}/deliveries", HOOKS_READ, 200),
    "Redeliver": Route(
        "WebhookService", "POST", "/v1/webhooks/{webhook_id}/deliveries/{event_id}:redeliver", HOOKS_WRITE, 202
    ),
    "GetCallbackSecret": Route("WebhookService", "GET", "/v1/webhooks/callback-secret", HOOKS_WRITE, 200),
    "GetLimits": Route("LimitService", "GET", "/v1/limits", ANY_TOKEN, 200),
    "IssueToken": Route("AuthService", "POST", "/oauth2/token", None, 200),
    "GetJwks": Route("AuthService", "GET", "/.well-known/jwks.json", None, 200),
}
SCOPES = sorted({route.scope for route in ROUTES.values() if route.scope})
