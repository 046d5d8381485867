// Verifiers that hold an access token to RFC 9068: each finds the keys by the server's metadata, and takes what the login gives.
import assert from 'node:assert/strict'
import type { AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler } from 'express'
import { auth } from 'express-oauth2-jwt-bearer'
import * as oauth from 'oauth4webapi'

const base = process.argv[2]
const issuer = base.replace('127.0.0.1', 'localhost') // as usher dev calls itself
const answer = await fetch(`${base}/v1/auth/login`, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ email: process.env.ADMIN_EMAIL, password: process.env.ADMIN_PASSWORD }),
})
const { access_token: token, user } = await answer.json()
const forged = token.slice(0, token.lastIndexOf('.') + 1) + 'A'.repeat(86)
const claims = { iss: issuer, sub: user.id, client_id: 'usher', roles: ['admin'] }
const holds = (all: object, some: object) => assert.deepEqual({ ...all, ...some }, all)

const overHTTP = { [oauth.allowInsecureRequests]: true }
for (const algorithm of ['oauth2', 'oidc'] as const) {
  const at = new URL(issuer)
  const server = await oauth.processDiscoveryResponse(at, await oauth.discoveryRequest(at, { algorithm, ...overHTTP }))
  const verify = (token: string, audience: string) =>
    oauth.validateJwtAccessToken(server, new Request(base, { headers: { Authorization: `Bearer ${token}` } }), audience, overHTTP)
  holds(await verify(token, 'usher'), claims)
  await assert.rejects(verify(token, 'another'), { code: oauth.JWT_CLAIM_COMPARISON })
  await assert.rejects(verify(forged, 'usher'), { code: oauth.INVALID_RESPONSE })
}

const app = express()
app.get('/', auth({ issuerBaseURL: issuer, audience: 'usher', strict: true }), (req, res) => void res.json(req.auth))
app.get('/another', auth({ issuerBaseURL: issuer, audience: 'another', strict: true }))
app.use(((err, _req, res, _next) => void res.status(err.status).send(err.message)) satisfies ErrorRequestHandler)
const service = app.listen(0, '127.0.0.1')
await new Promise((ready) => service.once('listening', ready))
const ask = (path: string, token: string) =>
  fetch(`http://127.0.0.1:${(service.address() as AddressInfo).port}${path}`, { headers: { Authorization: `Bearer ${token}` } })
const taken = await ask('/', token)
assert.equal(taken.status, 200, await taken.clone().text())
const { header, payload } = await taken.json()
holds(header, { typ: 'at+jwt', alg: 'ES256' })
holds(payload, claims)
assert.equal((await ask('/another', token)).status, 401)
assert.equal((await ask('/', forged)).status, 401)
service.close()
console.log('oauth4webapi, express-oauth2-jwt-bearer: ok')
