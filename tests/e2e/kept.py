"""One of each thing that a service keeps, and whether another has it."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from tests.e2e.test_jobs import create, entry, finished
from tests.images import star_png


@dataclass(frozen=True)
class Kept:
    """An upload, a job with a heatmap, a webhook, and the address under which they were made."""

    edge_url: str
    storage_id: str
    job_id: str
    webhook_id: str

    def is_there(self, api: httpx.Client) -> None:
        """Fails unless the service behind `api` has them, which takes the keys of before."""
        named = {"model": "shapes", "image": {"storage_id": self.storage_id}}
        assert api.post("/v1/infer", json=named).json()["classes"][0]["id"] == "star"
        (item,) = api.get(f"/v1/jobs/{self.job_id}/results").json()["items"]
        link = item["result"]["heatmap"]["url"].removeprefix(self.edge_url)
        assert api.get(link).content.startswith(b"\x89PNG")
        assert api.get(f"/v1/webhooks/{self.webhook_id}").json()["url"] == "https://example.com/"


def keep(api: httpx.Client) -> Kept:
    """Makes them."""
    storage_id = api.post("/v1/uploads", content=star_png(), headers={"content-type": "image/png"}).json()["storage_id"]
    job_id = create(api, [entry("a", grad_cam={"enabled": True})]).json()["job_id"]
    finished(api, job_id)
    webhook_id = api.post("/v1/webhooks", json={"url": "https://example.com/"}).json()["webhook_id"]
    return Kept(str(api.base_url).rstrip("/"), storage_id, job_id, webhook_id)
