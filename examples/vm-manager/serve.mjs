// The same page in a browser, without Electron:  node serve.mjs [FOLDER]
//
// For trying it, and for its test. Listens on this machine only, and answers only who has the address with its token.
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Disks } from './disks.mjs'

const page = fileURLToPath(new URL('./page/', import.meta.url))
const types = { '.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript' }
const longestMessage = 65536

/** What preload.cjs is in Electron. */
const bridge = `
const token = new URLSearchParams(location.search).get('token')
window.disks = {
  ask: (verb, argument) =>
    fetch('/ask?token=' + token, { method: 'POST', body: JSON.stringify({ verb, argument }) }).then((answer) => answer.json()),
  onTold: (listener) => {
    new EventSource('/told?token=' + token).onmessage = ({ data }) => listener(JSON.parse(data))
  },
}`

/** @returns the address of the page, and what ends it all */
export async function serve(folder) {
  const token = randomBytes(24).toString('hex')
  const listeners = new Set()
  const disks = new Disks(folder, (message) => {
    for (const listener of listeners) listener.write(`data: ${JSON.stringify(message)}\n\n`)
  })
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => response.writeHead(500).end(String(error)))
  })

  async function answer(request, response) {
    const { pathname, searchParams } = new URL(request.url, 'http://localhost')
    if (request.method === 'GET' && pathname === '/bridge.js') return send(response, '.js', bridge)
    if (request.method === 'GET' && /^\/[a-z-]+\.(?:js|css)$/.test(pathname)) {
      return send(response, extname(pathname), await readFile(join(page, pathname)))
    }
    if (!isEqual(searchParams.get('token'), token)) return response.writeHead(403).end()
    if (request.method === 'GET' && pathname === '/') {
      const html = await readFile(join(page, 'index.html'), 'utf8')
      return send(
        response,
        '.html',
        html.replace('<script', '<script src="bridge.js"></script>\n    <script'),
      )
    }
    if (request.method === 'GET' && pathname === '/told') {
      response
        .writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
        .flushHeaders()
      listeners.add(response)
      request.on('close', () => listeners.delete(response))
      return undefined
    }
    if (request.method !== 'POST' || pathname !== '/ask') return response.writeHead(404).end()
    const { verb, argument } = JSON.parse(await bodyOf(request))
    return response
      .writeHead(200, { 'content-type': 'application/json' })
      .end(JSON.stringify(await disks.answer(verb, argument)))
  }

  await new Promise((done) => server.listen(0, '127.0.0.1', done))
  return {
    address: `http://127.0.0.1:${server.address().port}/?token=${token}`,
    async close() {
      await disks.close()
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  }
}

function send(response, ending, body) {
  response.writeHead(200, { 'content-type': `${types[ending]}; charset=utf-8`, 'cache-control': 'no-store' })
  response.end(body)
}

function isEqual(given, token) {
  const [one, other] = [Buffer.from(given ?? ''), Buffer.from(token)]
  return one.length === other.length && timingSafeEqual(one, other)
}

async function bodyOf(request) {
  let body = ''
  for await (const piece of request.setEncoding('utf8')) {
    body += piece
    if (body.length > longestMessage) throw new Error('too long')
  }
  return body
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { address } = await serve(resolve(process.argv[2] ?? 'disks'))
  console.log(`Open ${address}`)
}
