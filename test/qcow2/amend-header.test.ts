import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import {
  changeDataFile,
  downgradeHeader,
  planVersion,
  refuseDowngrade,
  upgradeHeader,
} from '../../lib/qcow2/amend-header.js'
import { parseHeader } from '../../lib/qcow2/header.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { otherwise } from '../crash/altered-backend.js'
import { afterPowerCut } from '../support/power-cut.js'
import { imageBytes } from '../support/qcow2-disk.js'
import { SeededRandom } from '../support/seeded-random.js'
import { headerCluster } from '../support/header-cluster.js'
import { qemuImg } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const sector = 512

function firstCluster(clusterBits: number, version: 2 | 3, backingFile: string | undefined): Uint8Array {
  return headerCluster(clusterBits, version, backingFile ? { file: backingFile, format: 'qcow2' } : undefined)
}

test('in every step the header before and the one after are whole on either side of the first sector', (t) => {
  for (const clusterBits of [9, 12, 16]) {
    for (const length of [0, 1, 100, 300, 416, 600, 1023].filter((bytes) => bytes < 2 ** clusterBits - 200)) {
      const name = length === 0 ? undefined : 'n'.repeat(length)
      for (const version of [2, 3] as const) {
        let before = firstCluster(clusterBits, 5 - version === 3 ? 3 : 2, name)
        for (const after of planVersion(before, version, 'test')) {
          // The tail is there, the first sector is not yet.
          const between = after.slice()
          between.set(before.subarray(0, sector))
          const said = (cluster: Uint8Array): unknown => {
            const { backingFile, backingFormat, extensions } = parseHeader(cluster, 'test')
            return { backingFile, backingFormat, types: extensions.map(({ type }) => type) }
          }
          t.deepEqual(said(between), said(before))
          t.is(parseHeader(after, 'test').backingFile, name)
          before = after
        }
        t.is(parseHeader(before, 'test').version, version)
      }
    }
  }
})

test('both forms are to the byte what the stock tool makes of them', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  for (const backing of [[], ['-u', '-b', 'base', '-F', 'qcow2']]) {
    const path = join(folder, 'disk.qcow2')
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', ...backing, path, '1M')
    const version2 = new Uint8Array(await readFile(path)).slice(0, 65536)
    const [version3] = planVersion(version2, 3, path)
    await qemuImg('create', '-q', '-f', 'qcow2', ...backing, path, '1M')
    t.true(Buffer.from(version3 ?? []).equals((await readFile(path)).subarray(0, 65536)))
  }
})

test('a file goes to version 3 and back, and what version 2 cannot have is refused by name', async (t) => {
  const backend = new MemoryBackend({
    contents: await imageBytes({ size: 65536, clusterSize: 4096, version: 2 }),
  })
  await upgradeHeader(backend)
  const { header } = await readHeader(backend)
  t.like(header, { version: 3, headerLength: 112, refcountOrder: 4 })
  const refused = (change: object): string | undefined =>
    t.throws(() => refuseDowngrade({ ...header, ...change }, 'test'), { code: 'ERR_NOT_SUPPORTED' }).message
  t.is(refused({ incompatibleFeatures: 4n }), 'Cannot downgrade an image with a data file')
  const message = 'Cannot downgrade an image with incompatible features 0x10 set'
  t.is(refused({ incompatibleFeatures: 0x11n }), message)
  t.is(refused({ refcountOrder: 5 }), 'compat=0.10 requires refcount_bits=16')
  await downgradeHeader(backend)
  t.is((await readHeader(backend)).header.version, 2)
})

test('whenever the power goes, a header names the old data file or the new one, and all else that it said', async (t) => {
  const from = 'o'.repeat(30)
  const to = 'n'.repeat(420)
  const contents = await imageBytes({ size: 65536, clusterSize: 4096, dataFile: from, dataFileRaw: true })
  const before = contents.toBytes()
  const random = new SeededRandom(5)
  /** @returns headers that were neither */
  const torn = async (isMutant: boolean): Promise<number> => {
    const backend = new MemoryBackend({ contents: SparseBytes.from(before), record: true })
    const used = isMutant ? otherwise(backend, { flush: () => Promise.resolve() }) : backend
    await changeDataFile(used, { name: to, isRaw: false })
    let neither = 0
    for (let cut = 0; cut <= backend.log.length; cut++) {
      for (let state = 0; state < 40; state++) {
        const left = new MemoryBackend({ contents: afterPowerCut(before, backend.log, cut, random) })
        const said = await readHeader(left).then(
          ({ header: { dataFile, autoclearFeatures, extensions } }) =>
            `${dataFile === from ? 'old' : dataFile === to ? 'new' : 'other'} ${autoclearFeatures} ${extensions.length}`,
          String,
        )
        // On the way to the new one the header may do without its feature names.
        if (!/^(old 2 [12]|new 0 [12])$/.test(said)) neither++
      }
    }
    const { header } = await readHeader(backend)
    t.is(header.dataFile, to)
    return neither
  }
  t.is(await torn(false), 0)
  t.true((await torn(true)) > 0, 'without the barriers some are torn')
})
