"""The object store that the settings choose."""

from __future__ import annotations

from pathlib import Path

from camserve_server.base.clock import Clock
from camserve_server.base.config import Settings
from camserve_server.stores.guarded_objects import GuardedObjects
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects
from camserve_server.stores.objects import Budget, DirectLinks, ObjectStore
from camserve_server.stores.sigv4 import Credentials


def open_objects(
    settings: Settings, ring_file: Path, budget: Budget, clock: Clock
) -> tuple[ObjectStore, DirectLinks | None]:
    """Returns the store behind breakers, and what makes links that lead to it where the settings ask for such.

    `budget` is charged for the memory of objects on their way.
    """
    if settings.s3_place is None:
        local = LocalObjects(settings.objects_dir, KeyRing(ring_file, clock=clock), clock=clock)
        return GuardedObjects(local, clock), None
    # Here, because its library costs memory that the local store does not need.
    from camserve_server.stores.s3_objects import S3Links, S3Objects, S3Settings

    credentials = None
    if settings.s3_access_key_id and settings.s3_secret_access_key:
        token = settings.s3_session_token
        credentials = Credentials(
            settings.s3_access_key_id,
            settings.s3_secret_access_key.get_secret_value(),
            token.get_secret_value() if token else None,
        )
    bucket, prefix = settings.s3_place
    chosen = S3Settings(
        bucket,
        prefix,
        settings.s3_region,
        endpoint=settings.s3_endpoint,
        credentials=credentials,
        encryption=settings.s3_encryption,
        kms_key_id=settings.s3_kms_key_id,
    )
    links = None
    if settings.s3_public_url and credentials:
        links = S3Links(chosen, settings.s3_public_url, credentials, clock=clock)
    return GuardedObjects(S3Objects(chosen, budget=budget, clock=clock), clock), links
