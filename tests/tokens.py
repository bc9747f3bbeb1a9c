"""Tokens that RFC 8725 warns of, and odd ones that are right, for every place that verifies tokens."""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Signer:
    """An ES256 key that the issuer publishes as `kid`, and claims that its tokens may have."""

    key: ec.EllipticCurvePrivateKey
    kid: str
    claims: dict[str, Any]

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        head = {"alg": "ES256", "kid": self.kid} | (header or {})
        return compact(
            {name: value for name, value in head.items() if value is not None}, self.claims | claims, self.key
        )


def part(value: Any) -> str:
    """A part of a token: text and bytes as they are, anything else as JSON."""
    data = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(header: Any, payload: Any, key: Any, algorithm: str = "ES256") -> str:
    """A token whose header says what it likes, signed with `algorithm`."""
    signed = f"{part(header)}.{part(payload)}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), key)
    return f"{signed}.{part(signature)}"


def hostile(signer: Signer) -> dict[str, str]:
    """Tokens that no place takes, by what is wrong with them."""
    claims, kid = signer.claims, signer.kid
    good = signer.token()
    head, body, signature = good.split(".")
    public = signer.key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    mine = ec.generate_private_key(ec.SECP256R1())
    my_jwk = jwt.algorithms.ECAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    twins = json.dumps(claims)[:-1] + ', "tenant": "victim"}'

    def symmetric(secret: bytes) -> str:
        # PyJWT refuses a public key as a secret; an attacker's library does not.
        signed = f"{part({'alg': 'HS256', 'kid': kid})}.{part(claims)}"
        return f"{signed}.{part(hmac.digest(secret, signed.encode(), 'sha256'))}"

    def forged(**header: Any) -> str:
        return compact({"alg": "ES256", **header}, claims, mine)

    return {
        "alg none": f"{part({'alg': 'none', 'kid': kid})}.{body}.",
        "alg none and a signature": f"{part({'alg': 'none', 'kid': kid})}.{body}.{signature}",
        "alg nOnE": f"{part({'alg': 'nOnE', 'kid': kid})}.{body}.",
        "HMAC with the public key in PEM": symmetric(pem),
        "HMAC with the public key as JSON": symmetric(json.dumps(jwk).encode()),
        "another algorithm than the key's": signer.token({"alg": "EdDSA"}),
        "an algorithm of the same family": signer.token({"alg": "ES384"}),
        "an algorithm of no list": signer.token({"alg": "ES256K"}),
        "no algorithm": signer.token({"alg": None}),
        "an algorithm that is no text": signer.token({"alg": ["ES256"]}),
        "two algorithms": compact(f'{{"alg": "none", "alg": "ES256", "kid": "{kid}"}}', claims, signer.key),
        "an algorithm in disguise": compact(
            f'{{"alg": "ES256", "\\u0061lg": "HS256", "kid": "{kid}"}}', claims, signer.key
        ),
        "crit": signer.token({"crit": ["exp"]}),
        "crit without names": signer.token({"crit": []}),
        "crit in disguise": compact(f'{{"alg": "ES256", "kid": "{kid}", "cr\\u0069t": ["x"]}}', claims, signer.key),
        "b64": signer.token({"b64": False, "crit": ["b64"]}),
        "b64 without crit": signer.token({"b64": False}),
        "a key of its own": forged(jwk=my_jwk),
        "the address of a key of its own": forged(
            jku="https://attacker.example/jwks", x5u="https://attacker.example/x"
        ),
        "a known kid and a foreign key": forged(kid=kid),
        "no kid and a foreign key": forged(),
        "kid as a path": signer.token({"kid": "../../../../dev/null"}),
        "kid as SQL": signer.token({"kid": "x' UNION SELECT 'key"}),
        "kid as a command": signer.token({"kid": f"{kid}|sleep 9"}),
        "kid with a zero": signer.token({"kid": f"{kid}\0"}),
        "kid without end": signer.token({"kid": kid + "x" * 10_000}),
        "kid that is no text": signer.token({"kid": [kid]}),
        "a signed object that is no claims": compact({"alg": "ES256", "kid": kid}, [claims], signer.key),
        "a token in a token": compact({"alg": "ES256", "kid": kid, "cty": "JWT"}, good, signer.key),
        "claims in UTF-16": compact({"alg": "ES256", "kid": kid}, json.dumps(claims).encode("utf-16"), signer.key),
        "claims that are no text": compact(
            {"alg": "ES256", "kid": kid}, json.dumps(claims).encode() + b"\xff", signer.key
        ),
        "a claim twice": compact({"alg": "ES256", "kid": kid}, twins, signer.key),
        "a logout token": signer.token({"typ": "logout+jwt"}),
        "a DPoP proof": signer.token({"typ": "application/dpop+jwt"}),
        "a security event": signer.token({"typ": "SECEVENT+JWT"}),
        "a subject of half a character": signer.token(sub="\ud800"),
        "an issue time that is no time": signer.token(iat="now"),
        "no audience in the list": signer.token(aud=[]),
        "others in the list of audiences": signer.token(aud=["other", "camserve2"]),
        "an empty audience": signer.token(aud=""),
        "an audience that is no text": signer.token(aud={"camserve": True}),
        "a part of the audience": signer.token(aud="cam"),
        "blanks inside": f"{head}. {body}.{signature}",
        "something after it": f"{good} x",
        "another token after it": f"{good}, {good}",
        "four parts": f"{good}.{signature}",
        "two parts": f"{head}.{body}",
        "no signature": f"{head}.{body}.",
        "an encrypted token": f"{part({'alg': 'dir', 'enc': 'A256GCM', 'zip': 'DEF'})}..{body}.{body}.{signature}",
        "padding": f"{head}.{body}.{signature}==",
        "the signature of another token": f"{head}.{body}.{signer.token(sub='b').split('.')[2]}",
        "a token without end": signer.token(note="x" * 13_000),
    }


def server_only(signer: Signer) -> dict[str, str]:
    """Tokens that the edge lets pass and the server refuses."""
    return {
        "an ID token": signer.token(at_hash="x"),
        "an ID token of a hybrid flow": signer.token(c_hash="x"),
        "an empty kid": signer.token({"kid": ""}),
        "a subject that is no line of text": signer.token(sub="a\nb"),
        "a subject without end": signer.token(sub="s" * 256),
    }


def fine(signer: Signer) -> dict[str, str]:
    """Tokens that every place takes."""
    return {
        "one of several audiences": signer.token(aud=["other", signer.claims["aud"]]),
        "no kid": signer.token({"kid": None}),
        "typ JWT": signer.token({"typ": "JWT"}),
        "typ of an access token": signer.token({"typ": "at+JWT"}),
        "typ in full": signer.token({"typ": "application/at+jwt"}),
        "typ with an escape": compact(
            f'{{"alg": "ES256", "kid": "{signer.kid}", "typ": "application\\/at+jwt"}}', signer.claims, signer.key
        ),
        "addresses of keys, which nobody reads": signer.token({"jku": "https://attacker.example", "x5t": "x"}),
        "blanks in the header": compact(f'{{ "alg" : "ES256" ,\n"kid" :"{signer.kid}" }}', signer.claims, signer.key),
    }
