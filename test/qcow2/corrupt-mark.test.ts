import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { checkImage, createImage, type ImageEvent, imageInfo, openImage } from '../../lib/index.js'
import { qemuImg, run } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const cluster = 65536

/** Where the L1 table is, and the first L2 table. */
function placesIn(bytes: Buffer): { l1: number; l2: number } {
  const l1 = Number(bytes.readBigUInt64BE(40))
  return { l1, l2: Number(bytes.readBigUInt64BE(l1) & 0xfffffffffffe00n) }
}

/** An image with data in its first cluster, whose second is mapped to the refcount block, as if it were its own. */
async function damaged(t: ExecutionContext, compat: '1.1' | '0.10' = '1.1'): Promise<string> {
  const path = join(await makeFolder(t), 'disk.qcow2')
  await createImage(path, { size: 16 * cluster, compat, lazyRefcounts: compat === '1.1' })
  {
    await using image = await openImage(path, { cache: { reservation: 0 } })
    await image.write(new Uint8Array(cluster).fill(1), 0)
  }
  const bytes = await readFile(path)
  const { l2 } = placesIn(bytes)
  const table = Number(bytes.readBigUInt64BE(48))
  bytes.writeBigUInt64BE(bytes.readBigUInt64BE(table) | (1n << 63n), l2 + 8)
  await writeFile(path, bytes)
  return path
}

for (const copied of [true, false]) {
  test(`a write whose last bytes would hit a table is refused as a whole, with clusters of its own: ${copied}`, async (t) => {
    const path = join(await makeFolder(t), 'disk.qcow2')
    await createImage(path, { size: 16 * cluster })
    {
      await using image = await openImage(path)
      await image.write(new Uint8Array(2 * cluster).fill(1), 0)
    }
    const bytes = await readFile(path)
    const { l2 } = placesIn(bytes)
    const entries = [bytes.readBigUInt64BE(l2), bytes.readBigUInt64BE(l2 + 8)].map(
      (entry) => entry & ((1n << 63n) - 1n),
    )
    t.is(entries[1], (entries[0] as bigint) + BigInt(cluster), 'neighbours: one run')
    if (!copied) for (const [index, entry] of entries.entries()) bytes.writeBigUInt64BE(entry, l2 + 8 * index)
    bytes.writeBigUInt64BE(entries[1] as bigint, Number(bytes.readBigUInt64BE(48)))
    await writeFile(path, bytes)
    const image = await openImage(path)
    const range = { offset: cluster - 512, length: 1024 }
    await t.throwsAsync(image.writeZeroes(range), { code: 'ERR_CORRUPT', message: /guest data overlaps it/ })
    await image.close()
    const after = await readFile(path)
    const table = Number(entries[1])
    t.deepEqual(after.subarray(table, table + cluster), bytes.subarray(table, table + cluster))
    t.deepEqual(after.subarray(l2, l2 + 16), bytes.subarray(l2, l2 + 16))
  })
}

test('a compressed write in the place of a table is refused: it would free the table', async (t) => {
  const path = await damaged(t)
  const before = await readFile(path)
  const image = await openImage(path)
  const written = image.writeCompressed(new Uint8Array(cluster).fill(5), cluster)
  await t.throwsAsync(written, { code: 'ERR_CORRUPT', message: /guest data overlaps it/ })
  await image.close()
  const after = await readFile(path)
  const table = Number(before.readBigUInt64BE(Number(before.readBigUInt64BE(48))))
  t.deepEqual(
    after.subarray(table, table + cluster),
    before.subarray(table, table + cluster),
    'its count too',
  )
})

for (const extendedL2 of [false, true]) {
  test(`aborted preallocation does not punch a table that an entry behind the old end names, extended L2 ${extendedL2}`, async (t) => {
    const path = join(await makeFolder(t), 'disk.qcow2')
    await createImage(path, { size: 8 * cluster, extendedL2 })
    {
      await using image = await openImage(path)
      await image.write(new Uint8Array(cluster).fill(1), 0)
    }
    const bytes = await readFile(path)
    const { l1, l2 } = placesIn(bytes)
    const entry = l2 + 10 * (extendedL2 ? 16 : 8)
    bytes.writeBigUInt64BE(BigInt(l1) | (1n << 63n), entry)
    if (extendedL2) bytes.writeBigUInt64BE(0xffffffffn, entry + 8)
    await writeFile(path, bytes)
    const image = await openImage(path)
    const stop = new AbortController()
    const reason = new Error('enough')
    const grown = image.resize(64 * cluster, {
      preallocation: 'full',
      signal: stop.signal,
      onProgress: ({ bytesDone }) => bytesDone > 4 * cluster && stop.abort(reason),
    })
    await t.throwsAsync(grown, { is: reason })
    t.deepEqual((await readFile(path)).subarray(l1, l1 + 8), bytes.subarray(l1, l1 + 8))
    await image.close()
  })
}

/** The third cluster of an image is mapped to where no cluster is. */
async function misplace(path: string): Promise<void> {
  const bytes = await readFile(path)
  const { l2 } = placesIn(bytes)
  bytes.writeBigUInt64BE((1n << 63n) | 0x50200n, l2 + 16)
  await writeFile(path, bytes)
}

test('a change that meets damage marks the image, and the next are refused; reads go on, and what was written stays', async (t) => {
  const path = await damaged(t)
  const events: ImageEvent[] = []
  const image = await openImage(path, { onEvent: (event) => events.push(event) })
  await image.write(Uint8Array.of(2), 5)
  await t.throwsAsync(image.write(Uint8Array.of(3), cluster), {
    code: 'ERR_CORRUPT',
    message: /guest data overlaps it/,
  })
  t.true((await imageInfo(path, { forceShare: true })).qcow2?.corrupt, 'at once')
  for (const change of [
    () => image.write(Uint8Array.of(3), 0),
    () => image.discard({ offset: 0, length: cluster }),
    () => image.resize(32 * cluster),
    () => image.snapshots.create('late'),
  ]) {
    await t.throwsAsync(change(), { code: 'ERR_CORRUPT', message: /until it is repaired: .*overlaps/ })
  }
  t.deepEqual(
    events.map(({ type }) => type),
    ['corrupt'],
  )
  t.is((await image.read({ offset: 5, length: 1 }))[0], 2)
  await image.flush()
  await image.close()

  await t.throwsAsync(openImage(path), { code: 'ERR_CORRUPT', message: /cannot be opened read\/write/ })
  t.regex((await run('qemu-io', ['-c', 'write 0 512', path])).stderr, /Image is corrupt/)
  t.regex(await qemuImg('info', path), /corrupt: true/)
  const seen = await openImage(path, { readOnly: true })
  t.is((await seen.read({ offset: 5, length: 1 }))[0], 2)
  await seen.close()
  t.like(await checkImage(path, { repair: 'all' }), { corruptions: 0, leaks: 0 })
  const { qcow2 } = await imageInfo(path)
  t.false(qcow2?.corrupt)
  const repaired = await openImage(path)
  await repaired.write(Uint8Array.of(4), 0)
  await repaired.close()
})

test('reading damage marks nothing', async (t) => {
  const path = await damaged(t)
  await misplace(path)
  const image = await openImage(path)
  await t.throwsAsync(image.read({ offset: 2 * cluster, length: 1 }), { code: 'ERR_CORRUPT' })
  await image.write(Uint8Array.of(2), 5)
  await image.close()
  t.false((await imageInfo(path)).qcow2?.corrupt)
})

test('version 2 has no such bit: the session alone is over', async (t) => {
  const path = await damaged(t, '0.10')
  const image = await openImage(path)
  await t.throwsAsync(image.write(Uint8Array.of(3), cluster), { code: 'ERR_CORRUPT' })
  await t.throwsAsync(image.write(Uint8Array.of(3), 0), { message: /until it is repaired/ })
  await image.close()
  const again = await openImage(path)
  await again.write(Uint8Array.of(3), 0)
  await again.close()
})

test('damage of a backing file is not the damage of the image above it', async (t) => {
  const path = await damaged(t)
  await misplace(path)
  const top = join(path, '..', 'top.qcow2')
  await createImage(top, { backingFile: 'disk.qcow2', backingFormat: 'qcow2' })
  const image = await openImage(top)
  await t.throwsAsync(image.write(Uint8Array.of(3), 2 * cluster), { code: 'ERR_CORRUPT' })
  await image.write(Uint8Array.of(3), 0)
  await image.close()
  t.false((await imageInfo(top)).qcow2?.corrupt)
})
