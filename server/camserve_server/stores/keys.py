"""The names of all keys in Redis, one function for each.

The part in braces decides a cluster's slot: all keys of one tenant lie together.
"""

from __future__ import annotations

from urllib.parse import quote


def oauth_clients(tenant: str) -> str:
    """A set: the ids of the tenant's OAuth clients; emptied by revocation."""
    return f"camserve:{{{_tag(tenant)}}}:oauth_clients"


def oauth_client(client_id: str) -> str:
    """A hash: one OAuth client, tagged by its own id because sign-in does not know the tenant yet."""
    return f"camserve:{{{_tag(client_id)}}}:oauth_client"


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


def ring() -> str:
    """The prefix of what the tenants share: turns, versions and counters of the ring, and the workers."""
    return "camserve:{ring}:"


def ring_turns() -> str:
    """A sorted set: the tenants with work by their turn."""
    return f"{ring()}turns"


def ring_workers() -> str:
    """A hash: of each worker when it was seen in ms, its width, and its pace in items per 1000 s."""
    return f"{ring()}workers"


def job_tenants() -> str:
    """A set: every tenant that ever had a job, for the janitor."""
    return f"{ring()}tenants"


def job_expiries() -> str:
    """A sorted set: `job_id tenant` by the time in ms at which the janitor looks at the job."""
    return f"{ring()}expiries"


def _tag(name: str) -> str:
    # Quoting keeps braces and colons of a tenant's name from ending the tag or naming another key.
    return quote(name, safe="")
