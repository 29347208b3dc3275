import test from 'ava'
import { findKey } from '../../lib/luks/key-slots.js'
import { newVolumeHeader, volumeSpec } from '../../lib/luks/new-volume.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { lockedVolume, readEncryptionHeader } from '../../lib/qcow2/encryption-header.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import type { BlockBackend } from '../../lib/queue/backend.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { SeededRandom } from '../support/seeded-random.js'
import { otherwise } from './altered-backend.js'
import { eachChoice } from './choices.js'
import { readLog } from './device-log.js'
import { DurableDisk } from './durable-disk.js'

const passphrase = Buffer.from('enumerated')
const spec = volumeSpec({ cipherAlg: 'aes-128', cipherMode: 'cbc', iterTime: 1 })
const limits = { perPoint: 1, exhaustive: 2 ** 14 }

/** The file is no image yet, or one that its passphrase opens. */
async function judge(bytes: Uint8Array, isOver: boolean): Promise<string | undefined> {
  const backend = new MemoryBackend({ contents: SparseBytes.from(bytes), readOnly: true })
  const magic = new Uint8Array(4)
  await backend.read(magic, 0)
  if (magic.every((byte) => byte === 0)) return isOver ? 'there is no image' : undefined
  try {
    const { header } = await readHeader(backend)
    await findKey(lockedVolume(backend, await readEncryptionHeader(backend, header)), passphrase, [0])
    return undefined
  } catch (error) {
    return String(error)
  }
}

type Seen = { points: number; exhaustivePoints: number; states: number; problem: string | undefined }

/** Look at every disk that a crash could leave while an encrypted image is made: of each write nothing, all, or a part. */
async function everyCrash(alter: (memory: MemoryBackend) => BlockBackend): Promise<Seen> {
  const memory = new MemoryBackend({ record: true })
  await createQcow2(alter(memory), {
    version: 3,
    size: 2 ** 20,
    clusterSize: 4096,
    refcountBits: 16,
    lazyRefcounts: false,
    luksHeader: await newVolumeHeader(spec, passphrase),
  })
  const log = readLog(memory.log, new Uint8Array(0))
  const durable = new DurableDisk(new Uint8Array(0), log)
  const seen: Seen = { points: 0, exhaustivePoints: 0, states: 0, problem: undefined }
  const times = [...log.syncs.map(({ ended }) => ended - 1), log.end]
  for (const time of times) {
    const states = durable.statesAt(time)
    const left: Uint8Array[] = []
    const visit = (): boolean => {
      states.settleLength()
      left.push(states.disk.bytes.slice(0, states.disk.length))
      return false
    }
    seen.points++
    if (eachChoice(states, limits, new SeededRandom(1), () => '', visit)) seen.exhaustivePoints++
    seen.states += left.length
    for (const bytes of left) seen.problem ??= await judge(bytes, time === log.end)
  }
  durable.end()
  return seen
}

test('E24: a crash while an encrypted image is made leaves none, or one that its passphrase opens: every state', async (t) => {
  const seen = await everyCrash((memory) => memory)
  t.is(seen.problem, undefined)
  t.is(seen.exhaustivePoints, seen.points)
  t.true(seen.states > 10, `${seen.states} states`)
  t.log(`${seen.states} states at ${seen.points} crashes`)
})

test('E24: without the sync between the LUKS header and the header that points to it, one does not', async (t) => {
  let flushes = 0
  const seen = await everyCrash((memory) =>
    otherwise(memory, { flush: () => (flushes++ === 0 ? Promise.resolve() : memory.flush()) }),
  )
  t.not(seen.problem, undefined)
})
