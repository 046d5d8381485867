export default {
  usher: {
    input: './openapi.yaml',
    output: { target: 'generated/orval.ts', client: 'fetch', override: { mutator: { path: './orval_fetch.ts', name: 'call' } } },
  },
}
