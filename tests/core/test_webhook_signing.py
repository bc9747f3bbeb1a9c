from __future__ import annotations

import hashlib
import hmac
import json
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from camserve_server.core.webhook_signing import is_authentic, secret_bytes, secret_text, signed_headers

SECRET, OTHER = bytes(range(32)), bytes(reversed(range(32)))
BODY = json.dumps({"event": "job.succeeded"}).encode()
NOW = 1_800_000_000


def test_the_signature_is_that_of_the_contract():
    headers = signed_headers([SECRET], "evt_1", 1234, BODY)
    expected = hmac.new(SECRET, b"evt_1.1234." + BODY, hashlib.sha256).hexdigest()
    assert headers["x-signature"] == f"sha256={expected}"
    assert (headers["x-event-id"], headers["x-timestamp"]) == ("evt_1", "1234")


@pytest.mark.parametrize("secrets", [[SECRET], [OTHER, SECRET], [SECRET, OTHER]])
def test_standard_webhooks_and_we_verify_with_either_secret(secrets):
    # The public verifier has the clock of the machine only.
    now = int(time.time())
    headers = signed_headers(secrets, "evt_1", now, BODY)
    assert Webhook(secret_text(SECRET)).verify(BODY, headers) == json.loads(BODY)
    assert is_authentic(SECRET, headers, BODY, now)


@pytest.mark.parametrize(
    ("secret", "changes", "body", "now"),
    [
        (OTHER, {}, BODY, NOW),
        (SECRET, {}, BODY + b" ", NOW),
        (SECRET, {"x-event-id": "evt_2"}, BODY, NOW),
        (SECRET, {"x-timestamp": str(NOW + 1)}, BODY, NOW),
        (SECRET, {"x-timestamp": "soon"}, BODY, NOW),
        (SECRET, {"x-signature": ""}, BODY, NOW),
        (SECRET, {"x-signature": "sha256=é"}, BODY, NOW),
        (SECRET, {}, BODY, NOW + 301),
        (SECRET, {}, BODY, NOW - 301),
    ],
)
def test_what_was_altered_or_is_old_is_not_authentic(secret, changes, body, now):
    headers = signed_headers([SECRET], "evt_1", NOW, BODY) | changes
    assert not is_authentic(secret, headers, body, now)


def test_standard_webhooks_refuses_another_secret():
    headers = signed_headers([SECRET], "evt_1", int(time.time()), BODY)
    with pytest.raises(WebhookVerificationError, match="signature"):
        Webhook(secret_text(OTHER)).verify(BODY, headers)


def test_a_secret_is_read_as_it_was_written():
    assert secret_bytes(secret_text(SECRET)) == SECRET


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_AAAA", secret_text(SECRET)[6:], "whsec_!" + secret_text(SECRET)[7:]]
)
def test_what_is_no_secret_is_refused(text):
    with pytest.raises(ValueError, match="whsec_"):
        secret_bytes(text)
