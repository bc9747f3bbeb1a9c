"""Webhooks over REST, and what a receiver sees."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
from standardwebhooks import Webhook
from tests.conftest import REPLICAS, start_stack, stop_stack
from tests.e2e.receiver import receiver
from tests.e2e.test_jobs import entry, picture
from tests.openapi import DOCUMENT, conforms

from camserve_server.core.webhook_signing import is_authentic, secret_bytes

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def hooked(tmp_path_factory):
    """A receiver, and a stack that may send to it."""
    with receiver() as seen:
        # Eight attempts within seconds instead of a day.
        running = start_stack(
            tmp_path_factory.mktemp("stack"), webhook_allow=seen.place, webhook_retry_s=0.001, job_lease_s=2
        )
        yield running, seen
        stop_stack(running)


@pytest.fixture
def seen(hooked):
    return hooked[1]


@pytest.fixture
def api(hooked):
    running, _ = hooked
    headers = running.headers(tenant=f"hooks-{uuid4()}")
    with httpx.Client(base_url=running.edge_url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def path():
    return f"/{uuid4()}"


def register(api, seen, path, *events):
    answer = api.post("/v1/webhooks", json={"url": seen.url(path), "events": list(events)})
    assert answer.status_code == 201, answer.text
    return answer.json()


def job(api, *inputs, **changes):
    body = {"model": "shapes", "inputs": list(inputs) or [entry("a")]} | changes
    answer = api.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def deliveries(api, webhook, **params):
    answer = api.get(f"/v1/webhooks/{webhook['webhook_id']}/deliveries", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["deliveries"]


def settled(api, webhook, within_s=30):
    """Returns the only delivery once it is no longer pending."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = deliveries(api, webhook)
        if found and found[0]["status"] != "pending":
            assert len(found) == 1
            return found[0]
        time.sleep(0.02)
    pytest.fail(f"the delivery stays pending: {deliveries(api, webhook)}")


def error_code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def test_a_webhook_is_registered_listed_and_removed(api, seen, path):
    webhook = register(api, seen, path, "job.failed")
    assert set(webhook) == {"webhook_id", "url", "events", "created_at", "secret"}
    assert len(base64.b64decode(webhook["secret"].removeprefix("whsec_"))) == 32
    told = {name: value for name, value in webhook.items() if name != "secret"}
    assert api.get(f"/v1/webhooks/{webhook['webhook_id']}").json() == told
    assert api.get("/v1/webhooks").json() == {"webhooks": [told], "page": {"size": 1}}
    removed = api.delete(f"/v1/webhooks/{webhook['webhook_id']}")
    assert (removed.status_code, removed.content) == (204, b"")
    assert error_code(api.get(f"/v1/webhooks/{webhook['webhook_id']}")) == (404, "webhook.not_found")
    assert error_code(api.delete(f"/v1/webhooks/{webhook['webhook_id']}")) == (404, "webhook.not_found")


def test_the_end_of_a_job_is_sent_signed(api, seen, path):
    webhook = register(api, seen, path)
    job_id = job(api, entry("a"), entry("b", b"nothing"), metadata={"order": 7, "share": 0.5})
    (event,) = seen.wait(path, 1)
    results_url = f"{str(api.base_url).rstrip('/')}/v1/jobs/{job_id}/results"
    assert event.said == {
        "event": "job.succeeded",
        "job_id": job_id,
        "status": "succeeded",
        "items_succeeded": 1,
        "items_failed": 1,
        "results_url": results_url,
        "link_to_results": results_url,
        "metadata": {"order": 7, "share": 0.5},
    }
    assert b'"order":7,' in event.body
    assert event.headers["content-type"] == "application/json"
    assert Webhook(webhook["secret"]).verify(event.body, event.headers) == event.said
    described = DOCUMENT["webhooks"]["jobEvent"]["post"]
    conforms(event.said, described["requestBody"]["content"]["application/json"]["schema"])
    assert {each["name"].lower() for each in described["parameters"]} <= event.headers.keys()
    assert is_authentic(secret_bytes(webhook["secret"]), event.headers, event.body, time.time())
    assert api.get(results_url).status_code == 200
    done = settled(api, webhook)
    assert done == {
        "event_id": event.id,
        "event": "job.succeeded",
        "job_id": job_id,
        "status": "delivered",
        "attempts": 1,
        "last_status": 204,
    }


def test_only_the_events_that_were_asked_for_are_sent(api, seen, path):
    register(api, seen, f"{path}-failed", "job.failed", "job.canceled")
    register(api, seen, f"{path}-all")
    job(api)
    broken = job(api, entry("a", b"nothing"))
    canceled = job(api, *(entry(f"i{n}", picture()) for n in range(60)))
    api.delete(f"/v1/jobs/{canceled}")
    seen.wait(f"{path}-all", 3)
    told = {(event.said["event"], event.said["job_id"]) for event in seen.wait(f"{path}-failed", 2)}
    assert told == {("job.failed", broken), ("job.canceled", canceled)}


def test_a_failed_attempt_is_made_again_with_the_same_id_and_a_fresh_signature(api, seen, path):
    seen.answers[path] = [(500, {}), (302, {"location": seen.url("/elsewhere")}), (200, {})]
    webhook = register(api, seen, path)
    job(api)
    events = seen.wait(path, 3)
    assert len({event.id for event in events}) == 1
    assert len({event.body for event in events}) == 1
    for event in events:
        Webhook(webhook["secret"]).verify(event.body, event.headers)
    assert not seen.at("/elsewhere")
    assert settled(api, webhook) | {"event_id": "", "job_id": ""} == {
        "event_id": "",
        "event": "job.succeeded",
        "job_id": "",
        "status": "delivered",
        "attempts": 3,
        "last_status": 200,
    }


def test_after_eight_attempts_an_event_is_dead_and_may_be_sent_again(api, seen, path):
    seen.answers[path] = [(500, {})]
    webhook = register(api, seen, path)
    job(api)
    done = settled(api, webhook)
    assert (done["status"], done["attempts"], done["last_status"]) == ("dead", 8, 500)
    assert len(seen.at(path)) == 8
    assert deliveries(api, webhook, status="dead") == [done]
    assert deliveries(api, webhook, status="delivered") == []
    seen.answers[path] = [(200, {})]
    again = api.post(f"/v1/webhooks/{webhook['webhook_id']}/deliveries/{done['event_id']}:redeliver")
    assert (again.status_code, again.json()["status"], again.json()["attempts"]) == (202, "pending", 0)
    assert seen.wait(path, 9)[-1].id == done["event_id"]
    assert settled(api, webhook)["status"] == "delivered"


def test_retry_after_is_honoured(api, seen, path):
    seen.answers[path] = [(503, {"retry-after": "3600"})]
    webhook = register(api, seen, path)
    job(api)
    seen.wait(path, 1)
    while "last_status" not in (found := deliveries(api, webhook)[0]):
        time.sleep(0.02)
    wait = datetime.fromisoformat(found["next_attempt_at"]) - datetime.now(UTC)
    assert (found["status"], found["last_status"]) == ("pending", 503)
    assert 3500 < wait.total_seconds() < 3700


def test_gone_disables_a_webhook_until_a_delivery_succeeds(api, seen, path):
    seen.answers[path] = [(410, {})]
    webhook = register(api, seen, path)
    job(api)
    done = settled(api, webhook)
    assert (done["status"], done["attempts"], done["last_status"]) == ("dead", 1, 410)
    assert "disabled_at" in api.get(f"/v1/webhooks/{webhook['webhook_id']}").json()
    seen.answers[path] = [(200, {})]
    tested = api.post(f"/v1/webhooks/{webhook['webhook_id']}:test")
    assert (tested.status_code, tested.json()["event"]) == (202, "webhook.test")
    event = seen.wait(path, 2)[-1]
    assert (event.said["event"], event.id) == ("webhook.test", tested.json()["event_id"])
    while "disabled_at" in api.get(f"/v1/webhooks/{webhook['webhook_id']}").json():
        time.sleep(0.02)


def test_while_a_secret_rotates_both_verify(api, seen, path):
    webhook = register(api, seen, path)
    rotated = api.post(f"/v1/webhooks/{webhook['webhook_id']}:rotate").json()
    assert rotated["secret"] != webhook["secret"]
    api.post(f"/v1/webhooks/{webhook['webhook_id']}:test")
    (event,) = seen.wait(path, 1)
    assert len(event.headers["x-signature"].split(",")) == 2
    for secret in (webhook["secret"], rotated["secret"]):
        Webhook(secret).verify(event.body, event.headers)
        assert is_authentic(secret_bytes(secret), event.headers, event.body, time.time())


def test_a_callback_url_is_told_and_signed_with_the_tenants_secret(api, seen, path):
    job_id = job(api, callback_url=seen.url(path))
    (event,) = seen.wait(path, 1)
    assert event.said["job_id"] == job_id
    secret = api.get("/v1/webhooks/callback-secret").json()["secret"]
    assert Webhook(secret).verify(event.body, event.headers) == event.said


def test_an_endpoint_that_does_not_answer_delays_nobody(api, seen, path):
    seen.answers[f"{path}-dead"] = [None]
    dead = register(api, seen, f"{path}-dead")
    register(api, seen, path)
    jobs = {job(api) for _ in range(8)}
    assert {event.said["job_id"] for event in seen.wait(path, 8)} == jobs
    assert {each["status"] for each in deliveries(api, dead)} == {"pending"}


@pytest.mark.skipif(REPLICAS > 1, reason="it counts what one courier sends to an origin")
def test_many_places_of_an_origin_that_does_not_answer_delay_nobody(hooked, api, seen, path):
    running, _ = hooked
    headers = running.headers(tenant=f"hostile-{uuid4()}")
    with httpx.Client(base_url=running.edge_url, headers=headers, timeout=60) as hostile:
        for number in range(40):
            seen.answers[f"{path}-{number}"] = [None]
            job(hostile, callback_url=seen.url(f"{path}-{number}"))
        while sum(len(seen.at(f"{path}-{number}")) for number in range(40)) < 16:
            time.sleep(0.02)
        # Nor its own events elsewhere.
        register(hostile, seen, f"{path}-own")
        own = job(hostile)
        while own not in {event.said["job_id"] for event in seen.at(f"{path}-own")}:
            time.sleep(0.02)
        register(api, seen, path)
        told = job(api)
        (event,) = seen.wait(path, 1)
        assert event.said["job_id"] == told
        assert sum(len(seen.at(f"{path}-{number}")) for number in range(40)) == 16


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://u:p@example.com/",
        "ftp://a.example/",
        "x",
    ],
)
def test_a_place_inside_is_refused_at_registration_and_as_a_callback(api, url):
    wanted = (400, "webhook.url_not_allowed")
    assert error_code(api.post("/v1/webhooks", json={"url": url})) == wanted
    inputs = [entry("a")]
    assert error_code(api.post("/v1/jobs", json={"model": "shapes", "inputs": inputs, "callback_url": url})) == wanted
    assert api.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize("body", [{}, {"url": ""}, {"url": "https://a.example/", "events": ["job.started"]}])
def test_what_is_no_registration_is_refused(api, body):
    assert error_code(api.post("/v1/webhooks", json=body)) == (400, "param.invalid")


def test_another_tenants_webhook_is_like_an_unknown_one(hooked, api, seen, path):
    running, _ = hooked
    webhook = register(api, seen, path)
    one = f"/v1/webhooks/{webhook['webhook_id']}"
    with httpx.Client(base_url=running.edge_url, headers=running.headers(tenant="stranger"), timeout=60) as stranger:
        for answer in (
            stranger.get(one),
            stranger.delete(one),
            stranger.post(f"{one}:test"),
            stranger.post(f"{one}:rotate"),
            stranger.get(f"{one}/deliveries"),
            stranger.post(f"{one}/deliveries/evt_0000000000000000000000:redeliver"),
        ):
            assert error_code(answer) == (404, "webhook.not_found")
        assert stranger.get("/v1/webhooks").json()["webhooks"] == []
    assert api.get(one).status_code == 200


def test_scopes_divide_reading_from_writing(hooked, api, seen, path):
    running, _ = hooked
    webhook = register(api, seen, path)
    one = f"/v1/webhooks/{webhook['webhook_id']}"
    headers = running.headers(scopes=("webhooks.read",))
    with httpx.Client(base_url=running.edge_url, headers=headers, timeout=60) as reader:
        assert reader.get("/v1/webhooks").status_code == 200
        for answer in (
            reader.post("/v1/webhooks", json={"url": "https://a.example/"}),
            reader.post(f"{one}:test"),
            reader.get("/v1/webhooks/callback-secret"),
        ):
            assert error_code(answer) == (401, "auth.scope_insufficient")


def test_a_registration_under_a_key_is_one_with_one_secret(api, seen, path):
    headers = {"idempotency-key": path}
    first, second = (api.post("/v1/webhooks", json={"url": seen.url(path)}, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert len(api.get("/v1/webhooks").json()["webhooks"]) == 1


def test_secrets_outlive_the_rotation_of_the_key_that_seals_them(hooked, api, seen, path):
    running, _ = hooked
    webhook = register(api, seen, path)
    assert running.camserve("keys", "rotate", "state").returncode == 0
    api.post(f"/v1/webhooks/{webhook['webhook_id']}:test")
    (event,) = seen.wait(path, 1)
    Webhook(webhook["secret"]).verify(event.body, event.headers)


def test_deliveries_come_in_pages(api, seen, path):
    webhook = register(api, seen, path)
    one = f"/v1/webhooks/{webhook['webhook_id']}"
    sent = [api.post(f"{one}:test").json()["event_id"] for _ in range(5)]
    found, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.get(f"{one}/deliveries", params=params).json()
        found += [each["event_id"] for each in page["deliveries"]]
        cursor = page["page"].get("next_cursor")
        if not cursor:
            break
    assert sorted(found) == sorted(sent)
    wrong = api.get(f"{one}/deliveries", params={"cursor": "x"})
    assert error_code(wrong) == (400, "cursor.invalid")


def test_a_webhook_takes_its_own_verbs_only(api, seen, path):
    webhook = register(api, seen, path)
    wrong = api.put(f"/v1/webhooks/{webhook['webhook_id']}", json={})
    assert error_code(wrong) == (405, "method.not_allowed")
    assert wrong.headers["allow"] == "DELETE, GET"
