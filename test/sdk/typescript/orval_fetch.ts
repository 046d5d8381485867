// What orval's functions call: they know paths, and this knows where usher is and who asks.
export const usher = { base: '', token: '' }

export async function call<T>(path: string, options: RequestInit): Promise<T> {
  const headers = new Headers(options.headers)
  if (usher.token) headers.set('Authorization', `Bearer ${usher.token}`)
  const response = await fetch(usher.base + path, { ...options, headers })
  const text = await response.text()
  return { status: response.status, data: text ? JSON.parse(text) : undefined, headers: response.headers } as T
}
