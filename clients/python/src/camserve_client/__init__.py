"""The Python client of camserve: image classification that explains itself, over gRPC or REST."""

from __future__ import annotations

from camserve_client.auth import ClientCredentials
from camserve_client.client import AsyncClient
from camserve_client.contents import ImageSource, ImageUrl, StorageId
from camserve_client.errors import CamserveError
from camserve_client.heatmap import Heatmap
from camserve_client.jobs import AsyncJob
from camserve_client.options import Ask, Cam, Input
from camserve_client.results import ClassScore, InferResult, Item, JobInfo, Result, Upload
from camserve_client.retry import Backoff
from camserve_client.sync import Client, Job, Webhooks
from camserve_client.uploads import Progress
from camserve_client.version import VERSION
from camserve_client.webhook_calls import AsyncWebhooks
from camserve_client.webhooks import WebhookEvent, verify_webhook

__version__ = VERSION

__all__ = [
    "Ask",
    "AsyncClient",
    "AsyncJob",
    "AsyncWebhooks",
    "Backoff",
    "Cam",
    "CamserveError",
    "ClassScore",
    "Client",
    "ClientCredentials",
    "Heatmap",
    "ImageSource",
    "ImageUrl",
    "InferResult",
    "Input",
    "Item",
    "Job",
    "JobInfo",
    "Progress",
    "Result",
    "StorageId",
    "Upload",
    "WebhookEvent",
    "Webhooks",
    "verify_webhook",
]
