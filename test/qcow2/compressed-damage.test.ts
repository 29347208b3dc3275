import { open, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { openImage } from '../../lib/index.js'
import { qemuImg } from '../support/qemu.js'
import { SeededRandom } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const clusterSize = 65536
const clusters = 64
/** Text, of which neither kind of compression makes more than a part, but not nothing either. */
const words = Buffer.from(
  Array.from({ length: clusters * 12000 }, (_, at) => `${(at * at) % 65521} `).join(''),
).subarray(0, clusters * clusterSize)

for (const type of ['zlib', 'zstd'] as const) {
  test(`damaged payloads are errors of their own clusters, which say where: ${type}`, async (t) => {
    const folder = await makeFolder(t)
    const [source, path] = [join(folder, 'disk.raw'), join(folder, 'disk.qcow2')] as const
    const disk = Buffer.alloc(clusters * clusterSize)
    words.copy(disk)
    await writeFile(source, disk)
    await qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', `compression_type=${type}`, source, path)
    const random = new SeededRandom(22)
    const { size } = await stat(path)
    // Behind all tables, which come first: the payloads of the last clusters.
    const damagedFrom = Math.floor(size / 2)
    const file = await open(path, 'r+')
    for (let at = damagedFrom; at < size; at += 1 + random.integer(4000))
      await file.write(Uint8Array.of(random.integer(256)), 0, 1, at)
    await file.close()
    await using image = await openImage(path, { readOnly: true })
    let failed = 0
    for (let index = 0; index < clusters; index++) {
      const offset = index * clusterSize
      const expected = disk.subarray(offset, offset + clusterSize)
      try {
        const seen = await image.read({ offset, length: clusterSize })
        t.is(seen.length, clusterSize)
        // Deflate streams have no sum: what is damaged may still be one.
        if (index < clusters / 3) t.is(Buffer.compare(seen, expected), 0)
      } catch (error) {
        failed++
        t.like(error, { code: 'ERR_IO', structure: 'compressed cluster', path })
        const at = (error as { offset: number }).offset
        t.true(at >= damagedFrom - clusterSize && at < size)
      }
    }
    t.true(failed >= 10 && failed <= (clusters * 2) / 3, `${failed} clusters are lost`)
  })
}
