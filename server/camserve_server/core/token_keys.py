"""The built-in issuer's keys, from a ring."""

from __future__ import annotations

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from camserve_server.base.clock import Clock
from camserve_server.core.tokens import SigningKey
from camserve_server.stores.keyring import KeyRing, MasterKey

ALGORITHM = "ES256"
# The edge caches the public keys for 60 s and does not ask again for a key it does not know, so a new key must be
# published for longer than that before it signs.
PUBLISH_AHEAD_S = 120.0
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class IssuerKeys:
    """ES256 keys derived from a ring of master keys, so that rotating the ring rotates them."""

    def __init__(self, ring: KeyRing, clock: Clock) -> None:
        self._ring = ring
        self._clock = clock
        self._derived: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._published: tuple[tuple[str, ...], list[dict[str, str]]] = ((), [])

    def primary(self) -> SigningKey:
        """Returns the newest key that every verifier has had time to fetch."""
        key = self._ordered()[0]
        return SigningKey(key.id, ALGORITHM, self._private(key))

    def public_jwks(self) -> list[dict[str, str]]:
        """Returns the public halves as JSON Web Keys, the one that signs first; the same list until they change."""
        ordered = self._ordered()
        ids = tuple(key.id for key in ordered)
        if ids != self._published[0]:
            self._published = (ids, [self._jwk(key) for key in ordered])
        return self._published[1]

    async def seek(self) -> None:
        """Does nothing: a new key is in the ring at once."""

    def _ordered(self) -> list[MasterKey]:
        newest_first = sorted(self._ring.keys(), key=lambda key: key.created_at, reverse=True)
        known_since = self._clock.now() - PUBLISH_AHEAD_S
        known = [key for key in newest_first if key.created_at <= known_since and key.begins_at <= self._clock.now()]
        first = known[0] if known else newest_first[-1]
        return [first, *(key for key in newest_first if key is not first)]

    def _private(self, key: MasterKey) -> ec.EllipticCurvePrivateKey:
        if key.id not in self._derived:
            # 16 bytes more than the order has, so that the remainder is as good as uniform (FIPS 186-5, A.2.1).
            seed = int.from_bytes(self._ring.subkey(key, "token signing ES256", 48))
            self._derived[key.id] = ec.derive_private_key(seed % (_P256_ORDER - 1) + 1, ec.SECP256R1())
        return self._derived[key.id]

    def _jwk(self, key: MasterKey) -> dict[str, str]:
        public = jwt.algorithms.ECAlgorithm.to_jwk(self._private(key).public_key(), as_dict=True)
        return {
            "kty": str(public["kty"]),
            "kid": key.id,
            "use": "sig",
            "alg": ALGORITHM,
            "crv": str(public["crv"]),
            "x": str(public["x"]),
            "y": str(public["y"]),
        }
