import { join } from 'node:path'
import test from 'ava'
import { createImage, type DiskImage, openImage } from '../../lib/index.js'
import { copyDifferences } from '../../lib/operations/copy-differences.js'
import { makeFolder } from '../support/temp-folder.js'

const cluster = 4096
const size = 20 * cluster

/** Whole clusters filled with a value. */
async function fill(image: DiskImage, first: number, count: number, value: number): Promise<void> {
  await image.write(new Uint8Array(count * cluster).fill(value), first * cluster)
}

/** Which clusters the image has itself. */
async function ownClusters(image: DiskImage): Promise<{ data: number[]; zero: number[] }> {
  const own: { data: number[]; zero: number[] } = { data: [], zero: [] }
  for await (const { offset, length, depth, allocated, zero } of image.extents()) {
    if (depth > 0 || !allocated) continue
    for (let at = offset; at < offset + length; at += cluster) own[zero ? 'zero' : 'data'].push(at / cluster)
  }
  return own
}

for (const compat of ['1.1', '0.10'] as const) {
  test(`only clusters that differ are copied, and zeros stay zeros on a longer file: compat ${compat}`, async (t) => {
    const folder = await makeFolder(t)
    const path = (name: string): string => join(folder, name)
    // The old base ends in the middle; the new one has data behind that.
    await createImage(path('old'), { size: 10 * cluster, clusterSize: cluster })
    await createImage(path('new'), { size: 2 * size, clusterSize: 512 })
    const [old, other] = [await openImage(path('old')), await openImage(path('new'))]
    await fill(old, 0, 4, 1)
    await fill(old, 6, 1, 2)
    await fill(other, 0, 2, 1)
    await fill(other, 2, 1, 9)
    await other.write(Uint8Array.of(7), 14 * cluster + 5)
    await old.close()
    await createImage(path('top'), {
      size,
      clusterSize: cluster,
      compat,
      backingFile: 'old',
      backingFormat: 'qcow2',
    })
    const top = await openImage(path('top'))
    await fill(top, 1, 1, 5)
    const before = await top.read({ offset: 0, length: size })
    let done = 0
    const written = await copyDifferences(top, other, {
      signal: undefined,
      onDone: (bytes) => (done += bytes),
    })
    t.is(done, size)
    t.deepEqual(await top.read({ offset: 0, length: size }), before)
    t.is(written, 3 * cluster)
    // Version 2 has no other zeros than written ones.
    const own = { data: [1, 2, 3, 6], zero: [14] }
    t.deepEqual(await ownClusters(top), compat === '1.1' ? own : { data: [1, 2, 3, 6, 14], zero: [] })
    await top.close()
    await other.close()
  })
}
