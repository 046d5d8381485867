#!/usr/bin/env bash
# One would guess that a client library tells its caller the error of a token endpoint, `invalid_client` and why, whenever the endpoint
# sends one: RFC 6749, section 5.2, has a 401 carry both the JSON with the error and, where the client used the Authorization header, a
# WWW-Authenticate header; RFC 9110 has every 401 carry that header.
#
# What happens: oauth4webapi looks at the header first. With it, processClientCredentialsResponse throws a WWWAuthenticateChallengeError that
# has the challenge and no `error`, and the body is left unread, whichever way the client authenticated; without it, or with 400, it throws a
# ResponseBodyError with `error` and `error_description`. What the server said is still to be had, by reading the error's `response` oneself.
#
# Why it matters: a server that does what both RFCs ask for seems to say nothing. Whoever looks for why an assertion is refused (expired, used,
# wrong aud) finds nothing in the message, in `error` or in `cause`, which is the challenge. A test that expects
# error: 'invalid_client' of a 401 passes against servers that leave the header out, and fails against those that don't.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund oauth4webapi@3.8.8 >/dev/null

cat >run.mjs <<'END'
import http from 'node:http'
import * as oauth from 'oauth4webapi'

let answer
const server = http.createServer((_q, a) => {
  a.writeHead(answer.status, { 'Content-Type': 'application/json', ...answer.headers })
  a.end(JSON.stringify({ error: 'invalid_client', error_description: 'the assertion is expired' }))
})
await new Promise((done) => server.listen(0, '127.0.0.1', done))
const issuer = `http://127.0.0.1:${server.address().port}`
const as = { issuer, token_endpoint: `${issuer}/token` }
const client = { client_id: 'a' }
const seen = {}
for (const [name, what] of Object.entries({
  'with a challenge': { status: 401, headers: { 'WWW-Authenticate': 'Basic realm="a"' } },
  'without': { status: 401 },
  'with 400': { status: 400 },
})) {
  answer = what
  const response = await oauth.clientCredentialsGrantRequest(as, client, oauth.ClientSecretPost('b'), {}, { [oauth.allowInsecureRequests]: true })
  try {
    await oauth.processClientCredentialsResponse(as, client, response)
  } catch (err) {
    const unread = response.bodyUsed ? 'read' : `unread: ${(await err.response.json()).error}`
    seen[name] = `${err.constructor.name}, error ${err.error}, body ${unread}`
  }
}
server.close()
console.log(seen)
const want = {
  'with a challenge': 'WWWAuthenticateChallengeError, error undefined, body unread: invalid_client',
  'without': 'ResponseBodyError, error invalid_client, body read',
  'with 400': 'ResponseBodyError, error invalid_client, body read',
}
process.exit(JSON.stringify(seen) === JSON.stringify(want) ? 0 : 1)
END
echo "oauth4webapi $(node -p 'require("./node_modules/oauth4webapi/package.json").version'), node $(node --version)"
node run.mjs
echo "as described"
