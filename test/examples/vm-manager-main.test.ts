import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import test from 'ava'
import { installExample } from '../support/example.js'

/** As much of Electron as main.mjs and preload.cjs use: a stand-in, since the real one cannot be fetched everywhere. */
const standIn = `
const told = []
const handlers = new Map()
const events = new Map()
const window = {
  webContents: {
    send: (channel, message) => told.forEach(([wanted, listener]) => wanted === channel && listener({}, message)),
    setWindowOpenHandler: (handler) => { window.opens = handler },
    on: (event, listener) => { window[event] = listener },
  },
  isDestroyed: () => false,
  loadFile: async (path) => { window.loaded = path },
}
exports.window = window
exports.handlers = handlers
exports.events = events
exports.exposed = {}
exports.quits = 0
exports.BrowserWindow = class { constructor(options) { window.options = options; return window } }
exports.app = {
  whenReady: async () => {},
  getPath: () => globalThis.userData,
  on: (event, listener) => events.set(event, listener),
  quit: () => { exports.quits++ },
}
exports.ipcMain = { handle: (channel, handler) => handlers.set(channel, handler) }
exports.contextBridge = { exposeInMainWorld: (name, value) => { exports.exposed[name] = value } }
exports.ipcRenderer = {
  invoke: (channel, ...words) =>
    handlers.get(channel)({ senderFrame: { url: require('node:url').pathToFileURL(window.loaded).href } }, ...words),
  on: (channel, listener) => told.push([channel, listener]),
}
`

type Answer = { readonly value?: unknown; readonly error?: { readonly message: string } }
type StandIn = {
  readonly window: {
    readonly options: { readonly webPreferences: Record<string, unknown> }
    readonly opens: () => { action: string }
    readonly ['will-navigate']: (event: { preventDefault(): void }) => void
  }
  readonly handlers: Map<string, (event: object, ...words: unknown[]) => Answer | Promise<Answer>>
  readonly events: Map<string, (event: { preventDefault(): void }) => void>
  readonly exposed: {
    readonly disks?: {
      ask(verb: string, argument?: object): Promise<Answer>
      onTold(listener: (message: { type: string }) => void): void
    }
  }
  readonly quits: number
}

test("the main process and the preload script work together, on a stand-in for Electron's side", async (t) => {
  const { app, folder } = await installExample(t)
  const electron = join(app, 'node_modules/electron')
  await mkdir(electron)
  await writeFile(join(electron, 'index.js'), standIn)
  ;(globalThis as { userData?: string }).userData = folder
  await import(pathToFileURL(join(app, 'main.mjs')).href)
  const require = createRequire(join(app, 'main.mjs'))
  require('./preload.cjs')
  const electronSide = require('electron') as StandIn
  const { window, handlers, events, exposed } = electronSide

  // What the page gets, and what it gets it by.
  const { preload, ...isolation } = window.options.webPreferences
  t.deepEqual(isolation, { contextIsolation: true, nodeIntegration: false, sandbox: true })
  t.true(existsSync(preload as string))
  t.deepEqual(Object.keys(exposed), ['disks'])
  const told: string[] = []
  exposed.disks?.onTold(({ type }) => told.push(type))
  t.deepEqual(await exposed.disks?.ask('create', { name: 'a.qcow2', size: 2 ** 20 }), { value: undefined })
  t.deepEqual(told, ['changed'])
  t.true(existsSync(join(folder, 'disks/a.qcow2')))

  // Nobody else gets anything, and the page stays where it is.
  const foreign = { senderFrame: { url: 'https://example.org/' } }
  t.truthy((await handlers.get('disks:ask')?.(foreign, 'list'))?.error)
  t.deepEqual(window.opens(), { action: 'deny' })
  let prevented = 0
  const event = {
    preventDefault: (): void => {
      prevented++
    },
  }
  window['will-navigate'](event)
  t.is(prevented, 1)

  // Quitting waits until no image is open.
  events.get('before-quit')?.(event)
  t.is(prevented, 2)
  while (electronSide.quits === 0) await new Promise((resolve) => setImmediate(resolve))
  events.get('before-quit')?.(event)
  t.is(prevented, 2, 'now it may')
})
