import { listUsers, login, register, showMe, updateMe, type Login, type Problem, type Registered, type User, type ListUsers200 } from './generated/orval'
import { usher } from './orval_fetch'
import { walk } from './walk'

usher.base = process.argv[2]

await walk('orval', {
  async register(email, password) {
    const { data, headers } = (await register({ email, password, name: 'orval' })) as { data: Registered; headers: Headers }
    return { ...data.user, position: headers.get('Usher-Position') }
  },
  async login(email, password) {
    usher.token = ''
    const { data } = (await login({ email, password })) as { data: Login }
    return (usher.token = data.access_token)
  },
  me: async () => ((await showMe()) as { data: User }).data,
  dropName: async () => ((await updateMe({ name: null })) as { data: User }).data,
  find: async (email, position) => ((await listUsers({ email }, { headers: { 'Usher-Min-Position': position } })) as { data: ListUsers200 }).data.items,
  active: async (position) => ((await listUsers({ status: 'active' }, { headers: { 'Usher-Min-Position': position } })) as { data: ListUsers200 }).data.items,
  async wrongPassword(email) {
    const { status, data } = (await login({ email, password: 'wrong' })) as { status: number; data: Problem }
    return { status, code: data.code }
  },
})
