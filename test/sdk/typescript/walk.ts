// What every client is made to do, in terms of its own functions.
import assert from 'node:assert/strict'

export interface Client {
  register(email: string, password: string): Promise<{ id?: string; email: string; position: string | null }>
  login(email: string, password: string): Promise<string> // the access token, which later calls have
  me(): Promise<{ id: string; email: string; roles: string[]; name: string }>
  dropName(): Promise<{ name: string }>
  find(email: string, position: string): Promise<{ id: string }[]>
  active(position: string): Promise<{ email: string }[]>
  wrongPassword(email: string): Promise<{ status: number; code: string }>
}

export async function walk(name: string, c: Client) {
  const [email, password] = [`${name}@example.org`, 'a long passphrase of nobody']
  const registered = await c.register(email, password)
  assert.equal(registered.email, email)
  assert.match(registered.position ?? '', /^[0-9]+$/)
  const token = await c.login(email, password)
  assert.equal(token.split('.').length, 3)
  const me = await c.me()
  assert.deepEqual({ id: me.id, email: me.email, roles: me.roles, name: me.name }, { id: registered.id, email, roles: [], name: name })
  assert.equal((await c.dropName()).name, '')
  assert.deepEqual(await c.wrongPassword(email), { status: 401, code: 'invalid_credentials' })
  await c.login(process.env.ADMIN_EMAIL!, process.env.ADMIN_PASSWORD!)
  assert.deepEqual((await c.find(email, registered.position!)).map((u) => u.id), [registered.id])
  assert.ok((await c.active(registered.position!)).some((u) => u.email === email))
  console.log(`${name}: ok`)
}
