import { once } from 'node:events'
import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { Interruption, interruptible } from '../../lib/cli/interrupts.js'
import { makeFolder } from '../support/temp-folder.js'

const module = new URL('../../lib/cli/interrupts.js', import.meta.url).href

test('work that is not interrupted gives its result, and leaves no listener behind', async (t) => {
  const before = process.listenerCount('SIGINT')
  t.is(await interruptible(async (signal) => (signal.aborted ? 1 : 2)), 2)
  t.is(process.listenerCount('SIGINT'), before)
  await t.throwsAsync(
    interruptible(() => Promise.reject(new Error('broken'))),
    { message: 'broken' },
  )
  t.is(process.listenerCount('SIGINT'), before)
})

test('an interruption says which signal it was', (t) => {
  t.is(new Interruption('SIGTERM').signalName, 'SIGTERM')
})

test('the first signal asks the work to stop, the second one stops the process', async (t) => {
  const folder = await makeFolder(t)
  const program = join(folder, 'stubborn.mjs')
  await writeFile(
    program,
    `import { interruptible } from '${module}'
await interruptible(async (signal) => {
  signal.addEventListener('abort', () => console.log('asked'))
  setInterval(() => {}, 1000)
  console.log('working')
  await new Promise(() => {})
})`,
  )
  const child = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] })
  const seen: string[] = []
  child.stdout.on('data', (text: Buffer) => {
    seen.push(...text.toString().trim().split('\n'))
    child.kill('SIGINT')
  })
  const [, signal] = (await once(child, 'close')) as [number | null, string | null]
  t.is(signal, 'SIGINT')
  t.deepEqual(seen, ['working', 'asked'])
})
