import createClient from 'openapi-fetch'
import type { paths } from './generated/schema'
import { walk } from './walk'

const usher = createClient<paths>({ baseUrl: process.argv[2] })
let token = ''
usher.use({
  onRequest({ request }) {
    if (token) request.headers.set('Authorization', `Bearer ${token}`)
  },
})

await walk('openapi-typescript', {
  async register(email, password) {
    const { data, response } = await usher.POST('/v1/auth/register', { body: { email, password, name: 'openapi-typescript' } })
    return { ...data!.user, position: response.headers.get('Usher-Position') }
  },
  async login(email, password) {
    token = ''
    const { data } = await usher.POST('/v1/auth/login', { body: { email, password } })
    return (token = data!.access_token)
  },
  me: async () => (await usher.GET('/v1/me')).data!,
  dropName: async () => (await usher.PATCH('/v1/me', { body: { name: null } })).data!,
  find: async (email, position) =>
    (await usher.GET('/v1/users', { params: { query: { email }, header: { 'Usher-Min-Position': Number(position) } } })).data!.items,
  active: async (position) =>
    (await usher.GET('/v1/users', { params: { query: { status: 'active' }, header: { 'Usher-Min-Position': Number(position) } } })).data!.items,
  async wrongPassword(email) {
    const { error } = await usher.POST('/v1/auth/login', { body: { email, password: 'wrong' } })
    return { status: error!.status, code: error!.code }
  },
})
