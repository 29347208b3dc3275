import { join } from 'node:path'
import type { Outcome } from './attempts.js'
import { environmentWork } from './environment-work.js'
import { FailingMemory, variable } from './failing-memory.js'
import { imageWork, prepareImage } from './image-work.js'
import { queueWork } from './queue-work.js'

/** Does one kind of work over and over, in which the first, the second, the third, ... allocation fails. Usage: FOLDER WORK once|for-ever */
const [folder = '', work = '', when = ''] = process.argv.slice(2)
const forEver = when === 'for-ever'
const path = join(folder, 'file')
const memory = new FailingMemory(process.env[variable] as string)

type Work = (n: number) => Promise<Outcome>
const works: Readonly<Record<string, Work>> = {
  cached: (n) => queueWork(memory, path, { n, forEver, direct: false, record: false }),
  direct: (n) => queueWork(memory, path, { n, forEver, direct: true, record: false }),
  recorded: (n) => queueWork(memory, path, { n, forEver, direct: true, record: true }),
  image: (n) => imageWork(memory, path, { n, forEver, mode: 'writeback' }),
  'direct image': (n) => imageWork(memory, path, { n, forEver, mode: 'none' }),
  'image without a queue': (n) => imageWork(memory, path, { n, forEver, mode: 'writethrough' }),
  environment: (n) => environmentWork(memory, path, { n, forEver, closes: true }),
  'ended environment': (n) => environmentWork(memory, path, { n, forEver, closes: false }),
}
const perform = works[work]
if (perform === undefined) throw new Error(`no work of that name: ${work}`)
if (work.includes('image')) await prepareImage(path)

// What nobody waits for must not fail where nobody sees it.
process.on('unhandledRejection', (error) => {
  throw error
})

let faults = 0
for (let n = 1; ; n++) {
  // What the parent says where this process dies, or hangs.
  process.stdout.write(`at ${n}\n`)
  const { problems, failed } = await perform(n)
  for (const problem of problems) process.stdout.write(`PROBLEM at ${n}: ${problem}\n`)
  if (failed === 0) break
  faults += failed
}
process.stdout.write(`${faults} faults\n`)
