#!/usr/bin/env bash
# One would guess that form-action of a Content-Security-Policy says where a form may be sent, and that 'self' is right for a login
# form: it is sent to our own server. So it seems to be for as long as nobody logs in on the way to somewhere else.
#
# What happens: Chromium holds every redirect after the form against it as well, however many hosts of ours lie between. The answer of
# a login, 303 to our own /authorize and from there 302 to the application's callback, is dropped: the page stays where it is, with
# nothing to be seen but a line on the console, while the servers have logged the person in and given out a code that nobody fetches. A
# refresh from a page of ours in between, by the header or the element, is a navigation of its own and goes through.
#
# Why it matters: that chain is how every OAuth and OpenID provider answers a login form, a consent form, and a form_post; a strict
# policy breaks it, and tests that drive it by HTTP pass. To name the application's origin in form-action needs to know it before the
# login, and its own redirects too.
set -euo pipefail

chromium=${CHROMIUM:-$(command -v chromium || command -v google-chrome)}
work=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund puppeteer-core@24.31.0 >/dev/null

cat >run.mjs <<'END'
import http from 'node:http'
import puppeteer from 'puppeteer-core'

const listen = (handler) => new Promise((done) => { const s = http.createServer(handler); s.listen(0, '127.0.0.1', () => done(s)) })
const app = await listen((q, a) => a.end('<!doctype html><title>application</title>'))
const callback = `http://127.0.0.1:${app.address().port}/callback?code=1`
const seen = []
const ours = await listen((q, a) => {
  seen.push(q.url)
  a.setHeader('Content-Type', 'text/html')
  if (q.method === 'POST') return a.writeHead(303, { Location: q.url === '/login' ? '/authorize' : '/onward' }).end()
  if (q.url === '/authorize') return a.writeHead(302, { Location: callback }).end()
  if (q.url === '/onward') return a.setHeader('Refresh', '0; url=/authorize').end('<!doctype html><title>onward</title>')
  a.setHeader('Content-Security-Policy', "form-action 'self'")
  a.end(`<!doctype html><title>login</title><form method=post action=${q.url}><button>log in</button></form>`)
})
const home = `http://localhost:${ours.address().port}`
const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] })
console.log(await browser.version())
const logIn = async (path) => {
  seen.length = 0
  const page = await browser.newPage()
  const said = []
  page.on('console', (m) => said.push(m.text()))
  await page.goto(home + path)
  await page.click('button')
  const deadline = Date.now() + 20000
  const over = () => page.url() === callback || said.some((t) => t.includes('form-action'))
  while (!over() && Date.now() < deadline) await new Promise((r) => setTimeout(r, 50))
  await new Promise((r) => setTimeout(r, 500))
  console.log(`${path}: asked for ${seen.join(', ')}; the page is at ${page.url().replace(/:\d+/, '')}`)
  for (const text of said) console.log('  console: ' + text.replaceAll(/:\d+/g, ''))
  return page.url()
}
const redirected = await logIn('/login')
const refreshed = await logIn('/login-by-refresh')
await browser.close()
app.close(); ours.close()
if (redirected !== home + '/login' || refreshed !== callback) { console.error('that has changed'); process.exit(1) }
END
CHROMIUM=$chromium node run.mjs
