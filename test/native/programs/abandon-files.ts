import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { noSection } from '../../../lib/base/units.js'
import { BlockQueue } from '../../../lib/queue/block-queue.js'

/**
 * Opens files and forgets them; needs --expose-gc. Usage: FOLDER
 * Prints how many descriptors of files in the folder are open while they are in use, and after they were forgotten.
 */
const [folder = ''] = process.argv.slice(2)
const collect = (globalThis as { gc?: () => void }).gc
if (collect === undefined) throw new Error('run me with --expose-gc')

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').filter((descriptor) => {
    try {
      return readlinkSync(`/proc/self/fd/${descriptor}`).startsWith(folder)
    } catch {
      return false // the one that lists the folder
    }
  }).length
}

let most = 0
async function useAndForget(index: number): Promise<void> {
  const options = {
    readOnly: false,
    direct: index % 2 === 1,
    syncPolicy: 'flush',
    create: true,
    idleMs: 0,
  } as const
  const queue = await BlockQueue.open(`${folder}/${index}`, options)
  await queue.write(new Uint8Array(4096).fill(1), 4096)
  queue.enqueue(new Uint8Array(4096).fill(2), 0, noSection)
  most = Math.max(most, openDescriptors())
}

const count = 20
for (let index = 0; index < count; index++) await useAndForget(index)
for (let attempt = 0; attempt < 100 && openDescriptors() > 0; attempt++) {
  collect()
  await new Promise((resolve) => setTimeout(resolve, 10))
}
const metadata = Array.from({ length: count }, (_, index) => readFileSync(`${folder}/${index}`)[0])
process.stdout.write(
  JSON.stringify({ most, left: openDescriptors(), written: metadata.filter((byte) => byte === 2).length }),
)
