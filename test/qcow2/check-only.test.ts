import test from 'ava'
import { checkOnly } from '../../lib/qcow2/check-only.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { at, copied, emptyImage, imageWith } from '../support/check-state-of.js'

const backendOf = (bytes: Uint8Array) =>
  new MemoryBackend({ contents: SparseBytes.from(bytes), readOnly: true })

test('an empty image made by hand is clean', async (t) => {
  const result = await checkOnly(backendOf(emptyImage()), {})
  t.like(result, { corruptions: 0, leaks: 0, checkErrors: 0, totalClusters: 2048, imageEndOffset: 2048 })
  t.deepEqual(result.findings, [])
})

test('version 2 is checked as well', async (t) => {
  t.like(await checkOnly(backendOf(emptyImage({ version: 2 })), {}), { corruptions: 0, leaks: 0 })
})

test('a mapping without counts is found, and its flags with it', async (t) => {
  const image = imageWith({ 0: copied | at(5) }, {})
  image.writeBigUInt64BE(copied | at(4), 3 * 512)
  const result = await checkOnly(backendOf(image), { repair: 'all' })
  t.deepEqual(
    result.findings.map(({ kind, text }) => [kind, text]),
    [
      ['refcount', 'ERROR cluster 4 refcount=0 reference=1'],
      ['refcount', 'ERROR cluster 5 refcount=0 reference=1'],
      ['copied-flag', 'ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=8000000000000800 refcount=0'],
      ['copied-flag', 'ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00 refcount=0'],
    ],
  )
})

test('a huge sparse file costs what is in it, not its length', async (t) => {
  // 8 TiB of 512-byte clusters: a checker with a count for each would need 16 GiB and more
  const image = emptyImage()
  const contents = SparseBytes.from(image)
  contents.extend(2 ** 43)
  const result = await checkOnly(new MemoryBackend({ contents, readOnly: true }), { maxCountBytes: 65536 })
  t.like(result, { corruptions: 0, leaks: 0, imageEndOffset: 2048 })
})

/** L2 table at cluster 4, data from 5 on; counted as said. */
function mapped(l1: bigint, l2: Record<number, bigint>, counts: number[]): Buffer {
  const image = imageWith(l2, {}, {})
  image.writeBigUInt64BE(l1, 3 * 512)
  for (const [index, count] of counts.entries()) image.writeUInt16BE(count, 1024 + 2 * (4 + index))
  return image
}

/** How often the L2 table is read, and what is found. */
async function tableReads(image: Buffer) {
  const backend = backendOf(image)
  let reads = 0
  const readQueued = backend.readQueued.bind(backend)
  backend.readQueued = (bytes, offset) => {
    if (offset === 4 * 512) reads++
    return readQueued(bytes, offset)
  }
  const phases: string[] = []
  const { findings } = await checkOnly(backend, { onProgress: ({ phase }) => phases.push(phase) })
  return { reads, phases, texts: findings.map(({ text }) => text) }
}

test('where every flag is known to be right the tables are read once', async (t) => {
  const entries = { 0: copied | at(5), 1: copied | at(6), 7: 1n }
  const { reads, phases, texts } = await tableReads(mapped(copied | at(4), entries, [1, 1, 1]))
  t.deepEqual(texts, [])
  t.is(reads, 1)
  t.is(phases.at(-1), 'flags')
})

test('a flag that is wrong is found although all counts are right', async (t) => {
  const shared = { 0: copied | at(5), 1: copied | at(5), 2: copied | at(6) }
  for (const [image, expected] of [
    [
      mapped(copied | at(4), { 0: at(5), 1: copied | at(6) }, [1, 1, 1]),
      ['ERROR OFLAG_COPIED data cluster: l2_entry=a00 refcount=1'],
    ],
    [
      mapped(copied | at(4), { 0: copied | at(5), 1: at(6) | 1n }, [1, 1, 1]),
      ['ERROR OFLAG_COPIED data cluster: l2_entry=c01 refcount=1'],
    ],
    [
      mapped(at(4), { 0: copied | at(5), 1: copied | at(6) }, [1, 1, 1]),
      ['ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=800 refcount=1'],
    ],
    [
      mapped(copied | at(4), shared, [1, 2, 1]),
      [
        'ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00 refcount=2',
        'ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00 refcount=2',
      ],
    ],
  ] as const) {
    const { reads, texts } = await tableReads(image)
    t.deepEqual(texts, [...expected])
    t.is(reads, 2)
  }
})
