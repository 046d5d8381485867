// Services with credentials of their own, by a client library that others wrote: each gets a token, asks about it, and is refused where
// it ought to be. It finds the endpoints by the server's metadata.
import assert from 'node:assert/strict'
import * as oauth from 'oauth4webapi'

const base = process.argv[2]
const issuer = new URL(base.replace('127.0.0.1', 'localhost')) // as usher dev calls itself
const overHTTP = { [oauth.allowInsecureRequests]: true }
const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...overHTTP }))
const login = await fetch(`${base}/v1/auth/login`, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ email: process.env.ADMIN_EMAIL, password: process.env.ADMIN_PASSWORD }),
})
const { access_token: admin } = await login.json()
const add = async (settings: object) => {
  const answer = await fetch(`${base}/v1/clients`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${admin}` },
    body: JSON.stringify({ scopes: ['events:read', 'users:read'], ...settings }),
  })
  assert.equal(answer.status, 201, await answer.clone().text())
  return answer.json()
}
const grant = async (id: string, auth: oauth.ClientAuth) => {
  const client = { client_id: id }
  const answer = await oauth.clientCredentialsGrantRequest(server, client, auth, { scope: 'events:read' }, overHTTP)
  return oauth.processClientCredentialsResponse(server, client, answer)
}
const serves = async (id: string, auth: oauth.ClientAuth) => {
  const { access_token: token, scope } = await grant(id, auth)
  assert.equal(scope, 'events:read')
  const events = await fetch(`${base}/v1/events?limit=1`, { headers: { Authorization: `Bearer ${token}` } })
  assert.equal(events.status, 200, await events.clone().text())
  const client = { client_id: id }
  const asked = await oauth.introspectionRequest(server, client, auth, token, overHTTP)
  const told = await oauth.processIntrospectionResponse(server, client, asked)
  assert.deepEqual([told.active, told.sub, told.scope], [true, id, 'events:read'])
  await oauth.processRevocationResponse(await oauth.revocationRequest(server, client, auth, 'a token of nobody', overHTTP))
}
const refused = (id: string, auth: oauth.ClientAuth) => assert.rejects(grant(id, auth), { status: 401 })

const { client_id: basic, client_secret: secret } = await add({ name: 'basic' })
await serves(basic, oauth.ClientSecretBasic(secret))
await serves(basic, oauth.ClientSecretPost(secret))
await refused(basic, oauth.ClientSecretBasic(secret + 'x'))

const pairs: CryptoKeyPair[] = []
for (const algorithm of ['ES256', 'Ed25519', 'RS256', 'PS256']) {
  const pair = await oauth.generateKeyPair(algorithm, { extractable: true })
  const jwk = { ...(await crypto.subtle.exportKey('jwk', pair.publicKey)), kid: algorithm, use: 'sig' }
  for (const name of ['key_ops', 'ext'] as const) delete jwk[name]
  const { client_id: id } = await add({ name: `signs-${algorithm.toLowerCase()}`, jwks: { keys: [jwk] } })
  await serves(id, oauth.PrivateKeyJwt({ key: pair.privateKey, kid: algorithm }))
  await serves(id, oauth.PrivateKeyJwt(pair.privateKey))
  await refused(id, oauth.ClientSecretPost('a secret that it has not'))
  await refused(basic, oauth.PrivateKeyJwt(pair.privateKey))
  for (const other of pairs) await refused(id, oauth.PrivateKeyJwt({ key: other.privateKey, kid: algorithm }))
  pairs.push(pair)

  const once: { assertion?: string } = {}
  const auth = oauth.PrivateKeyJwt(pair.privateKey)
  const again: oauth.ClientAuth = async (as, client, body, headers) => {
    await auth(as, client, body, headers)
    body.set('client_assertion', (once.assertion ??= body.get('client_assertion')!))
  }
  await grant(id, again)
  await refused(id, again)
}
console.log('oauth4webapi as a service: ok')
