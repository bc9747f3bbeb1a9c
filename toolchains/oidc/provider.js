// A real OpenID provider that issues JWT access tokens for client credentials. Prints its issuer, then does what it is told on
// standard input: `rotate KID` signs with a new key from then on, and publishes that one only.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

console.info = console.error; // the provider's notices are no answers
const SCOPES = "inference.read inference.write jobs.read";

async function make(issuer, kid) {
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  return new Provider(issuer, {
    clients: [
      {
        client_id: "robot",
        client_secret: "robot-secret",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
      },
    ],
    jwks: { keys: [{ ...(await exportJWK(privateKey)), kid, use: "sig", alg: "RS256" }] },
    scopes: SCOPES.split(" "),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "urn:camserve",
        getResourceServerInfo: () => ({
          scope: SCOPES,
          audience: "camserve",
          accessTokenFormat: "jwt",
          accessTokenTTL: 600,
          jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
    extraTokenClaims: () => ({ tenant: "acme" }),
  }).callback();
}

let answer;
const server = createServer((request, response) => answer(request, response));
server.listen(0, "127.0.0.1", async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  answer = await make(issuer, "first");
  console.log(issuer);
  for await (const line of createInterface({ input: process.stdin })) {
    const kid = line.split(" ")[1];
    answer = await make(issuer, kid);
    console.log(kid);
  }
  process.exit();
});
