// The only thing of Electron that the page sees: window.disks, with two functions.
const { contextBridge, ipcRenderer } = require('electron')

contextBridge.exposeInMainWorld('disks', {
  ask: (verb, argument) => ipcRenderer.invoke('disks:ask', verb, argument),
  onTold: (listener) => {
    ipcRenderer.on('disks:told', (_event, message) => listener(message))
  },
})
