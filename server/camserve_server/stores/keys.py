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


def _tag(name: str) -> str:
    # Quoting keeps braces and colons of a tenant's name from ending the tag or naming another key.
    return quote(name, safe="")
