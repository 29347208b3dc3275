// Electron's main process: a window, and the way from it to the disks.
import { app, BrowserWindow, ipcMain } from 'electron'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { Disks } from './disks.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))
const page = join(here, 'page', 'index.html')

await app.whenReady()

const window = new BrowserWindow({
  width: 1180,
  height: 820,
  minWidth: 360,
  title: 'Disks',
  webPreferences: {
    preload: join(here, 'preload.cjs'),
    contextIsolation: true,
    nodeIntegration: false,
    sandbox: true,
  },
})

const disks = new Disks(join(app.getPath('userData'), 'disks'), (message) => {
  if (!window.isDestroyed()) window.webContents.send('disks:told', message)
})

// Only our own page may ask, and it stays where it is.
const pageAddress = pathToFileURL(page).href
ipcMain.handle('disks:ask', (event, verb, argument) => {
  if (event.senderFrame?.url !== pageAddress) return { error: { message: 'not this page' } }
  return disks.answer(verb, argument)
})
window.webContents.setWindowOpenHandler(() => ({ action: 'deny' }))
window.webContents.on('will-navigate', (event) => event.preventDefault())

let isClosed = false
app.on('before-quit', (event) => {
  if (isClosed) return
  event.preventDefault()
  disks.close().finally(() => {
    isClosed = true
    app.quit()
  })
})
app.on('window-all-closed', () => app.quit())

await window.loadFile(page)
