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
