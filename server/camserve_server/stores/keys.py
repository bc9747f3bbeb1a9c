"""The names of all keys in Redis, one function for each.

The part in braces decides a cluster's slot: all keys of one tenant lie together.
"""

from __future__ import annotations

from urllib.parse import quote, unquote


def oauth_clients(tenant: str) -> str:
    """A set: the ids of the tenant's OAuth clients; emptied by revocation."""
    return f"camserve:{{{_tag(tenant)}}}:oauth_clients"


def oauth_client(client_id: str) -> str:
    """A hash: one OAuth client, tagged by its own id because sign-in does not know the tenant yet."""
    return f"camserve:{{{_tag(client_id)}}}:oauth_client"


def client_failures(client_id: str) -> str:
    """A list: when attempts to sign in as the client failed lately, in ms, the oldest first."""
    return f"camserve:{{{_tag(client_id)}}}:client_failures"


def tenant(name: str) -> str:
    """The prefix of a tenant's keys, for scripts that name several of them."""
    return f"camserve:{{{_tag(name)}}}:"


def jobs(name: str) -> str:
    """A sorted set: the ids of the tenant's jobs by their submission in ms."""
    return f"{tenant(name)}jobs"


def job(name: str, job_id: str) -> str:
    """A hash: one job's record."""
    return f"{tenant(name)}job:{job_id}"


def job_items(name: str, job_id: str) -> str:
    """A hash: of item n its id d:n, sealed spec i:n, state s:n, claims c:n, fence f:n and sealed result r:n."""
    return f"{job(name, job_id)}:items"


def job_done(name: str, job_id: str) -> str:
    """A list: the indices of the finished items in the order in which they finished."""
    return f"{job(name, job_id)}:done"


def job_queue(name: str) -> str:
    """A list: the items that wait, as `job_id:index`."""
    return f"{tenant(name)}queue"


def job_leases(name: str) -> str:
    """A sorted set: the items under way by the end of their lease in ms."""
    return f"{tenant(name)}leases"


def idempotency(name: str, operation: str, digest: str) -> str:
    """A hash: what is known of one idempotency key; `digest` stands for the key."""
    return f"{tenant(name)}idempotency:{operation}:{digest}"


def upload(name: str, storage_id: str) -> str:
    """A string: what is known of an upload, as JSON."""
    return f"{tenant(name)}upload:{storage_id}"


def presigned(name: str, storage_id: str) -> str:
    """A string: what a presigned upload must be, as JSON."""
    return f"{tenant(name)}presigned:{storage_id}"


def pending_upload(name: str, storage_id: str) -> str:
    """A hash: an upload that comes piece by piece."""
    return f"{tenant(name)}pending:{storage_id}"


def pending_parts(name: str, storage_id: str) -> str:
    """A list: the objects that hold what has come of such an upload, in order."""
    return f"{tenant(name)}pending_parts:{storage_id}"


def rate(name: str) -> str:
    """A hash: the tenant's bucket of requests, its tokens and when they were counted in ms."""
    return f"{tenant(name)}rate"


def usage(name: str) -> str:
    """A hash: the day (since 1970), the images used of it, and of each running call those that it was charged."""
    return f"{tenant(name)}usage"


def running(name: str) -> str:
    """A sorted set: the tenant's running calls by the end of their lease in ms."""
    return f"{tenant(name)}running"


def every_running() -> str:
    """The pattern of the keys of `running`."""
    return "camserve:{*}:running"


def tenant_of(key: str) -> str:
    """Returns whose key it is."""
    return unquote(key.partition("{")[2].partition("}")[0])


def limits(name: str) -> str:
    """A hash: the tenant's plan and its own limits; emptied when it is reset."""
    return f"{tenant(name)}limits"


def webhook(name: str, webhook_id: str) -> str:
    """A hash: one webhook."""
    return f"{tenant(name)}webhook:{webhook_id}"


def webhook_filters(name: str) -> str:
    """A hash: which events each of the tenant's webhooks gets, `-` for one that is disabled."""
    return f"{tenant(name)}hooks"


def callback_secret(name: str) -> str:
    """A string: the tenant's sealed callback secret."""
    return f"{tenant(name)}callback_secret"


def delivery(name: str, endpoint: str, event_id: str) -> str:
    """A hash: what became of an event at an endpoint."""
    return f"{tenant(name)}delivery:{endpoint}:{event_id}"


def deliveries(name: str, endpoint: str) -> str:
    """A sorted set: the ids of an endpoint's events by the time in ms at which they came."""
    return f"{tenant(name)}deliveries:{endpoint}"


def outbox(name: str, endpoint: str) -> str:
    """A sorted set: the events that wait for an endpoint by the time in ms at which they are due."""
    return f"{tenant(name)}outbox:{endpoint}"


def outbox_sending(name: str, endpoint: str) -> str:
    """A sorted set: the events that are being sent to an endpoint by the end of their lease in ms."""
    return f"{tenant(name)}sending:{endpoint}"


def outbox_endpoints(name: str) -> str:
    """A set: the tenant's endpoints for which something waits or is being sent."""
    return f"{tenant(name)}endpoints"


def check() -> str:
    """A value that says nothing: it is written to see whether that can be done."""
    return "camserve:check"


def ring() -> str:
    """The prefix of what the tenants share: turns, versions and counters of the ring, and the workers."""
    return "camserve:{ring}:"


def ring_turns() -> str:
    """A sorted set: the tenants with work by their turn."""
    return f"{ring()}turns"


def ring_workers() -> str:
    """A hash: of each worker when it was seen in ms, its width, and its pace in items per 1000 s."""
    return f"{ring()}workers"


def ring_outbox_tenants() -> str:
    """A sorted set: tenants with events on their way, by the time in ms of their next turn."""
    return f"{ring()}outbox:tenants"


def ring_outbox(name: str) -> str:
    """A sorted set: the tenant's endpoints by the time in ms at which a courier looks at them."""
    return f"{ring()}outbox:of:{name}"


def known_tenants() -> str:
    """A set: every tenant that ever had a job or a webhook, for the janitor."""
    return f"{ring()}tenants"


def limited_tenants() -> str:
    """A set: every tenant with a plan or limits of its own."""
    return "camserve:{plans}:tenants"


def plans() -> str:
    """A set: the names of the plans."""
    return "camserve:{plans}:names"


def plan(name: str) -> str:
    """A hash: a plan's limits; emptied when it is deleted."""
    return f"camserve:{{plans}}:plan:{name}"


def model_route_marks() -> str:
    """A hash: of each model with routes the revision of them and what tells its writer, to see a change by one look."""
    return "camserve:{models}:route_marks"


def model_routes() -> str:
    """A hash: the routes of each model that has any, as JSON."""
    return "camserve:{models}:routes"


def model_route_changes(model: str) -> str:
    """A list: the last changes of a model's routes as JSON, the newest first."""
    return f"camserve:{{models}}:route_changes:{_tag(model)}"


def model_figures(model: str, span: int) -> str:
    """A hash: what each replica has counted of a model's versions in a span of time, as JSON."""
    return f"camserve:{{models}}:figures:{_tag(model)}:{span}"


def job_expiries() -> str:
    """A sorted set: `job_id tenant` by the time in ms at which the janitor looks at the job."""
    return f"{ring()}expiries"


def _tag(name: str) -> str:
    # Quoting keeps braces and colons of a tenant's name from ending the tag or naming another key.
    return quote(name, safe="")
