import { client } from './generated/heyapi/client.gen'
import { listUsers, login, register, showMe, updateMe } from './generated/heyapi'
import { walk } from './walk'

let token = ''
client.setConfig({ baseUrl: process.argv[2], auth: () => token })

await walk('hey-api', {
  async register(email, password) {
    const { data, response } = await register({ body: { email, password, name: 'hey-api' } })
    return { ...data!.user, position: response!.headers.get('Usher-Position') }
  },
  async login(email, password) {
    const { data } = await login({ body: { email, password } })
    return (token = data!.access_token)
  },
  me: async () => (await showMe()).data!,
  dropName: async () => (await updateMe({ body: { name: null } })).data!,
  find: async (email, position) => (await listUsers({ query: { email }, headers: { 'Usher-Min-Position': Number(position) } })).data!.items,
  active: async (position) => (await listUsers({ query: { status: 'active' }, headers: { 'Usher-Min-Position': Number(position) } })).data!.items,
  async wrongPassword(email) {
    const { error } = await login({ body: { email, password: 'wrong' } })
    return { status: error!.status, code: error!.code }
  },
})
