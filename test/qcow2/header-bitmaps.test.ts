import test from 'ava'
import { parseHeader } from '../../lib/qcow2/header.js'
import { planBitmaps } from '../../lib/qcow2/header-bitmaps.js'
import { bitmapPointer } from '../../lib/qcow2/bitmap-directory.js'
import { headerCluster } from '../support/header-cluster.js'

const pointers = [
  { count: 1, directoryBytes: 32, directoryOffset: 2 ** 20 },
  { count: 2, directoryBytes: 72, directoryOffset: 2 ** 21 },
  undefined,
  { count: 3, directoryBytes: 104, directoryOffset: 2 ** 22 },
]

function header(clusterBits: number, backingFile: string | undefined): Uint8Array {
  return headerCluster(
    clusterBits,
    3,
    backingFile === undefined ? undefined : { file: backingFile, format: 'qcow2' },
  )
}

const sectorsThatDiffer = (one: Uint8Array, other: Uint8Array): number[] =>
  Array.from({ length: one.length / 512 }, (_, sector) => sector).filter((sector) => {
    const [start, end] = [sector * 512, (sector + 1) * 512]
    return Buffer.compare(one.subarray(start, end), other.subarray(start, end)) !== 0
  })

for (const clusterBits of [9, 12, 16]) {
  for (const backingFile of [undefined, 'b'.repeat(60), 'x/'.repeat(100)]) {
    test(`any torn step names the old bitmaps or the new ones: clusters of ${2 ** clusterBits}, ${backingFile?.length ?? 0} bytes of name`, (t) => {
      let cluster = header(clusterBits, backingFile)
      let before: unknown = undefined
      const names = parseHeader(cluster, 'x')
      for (const pointer of pointers) {
        for (const step of planBitmaps(cluster, pointer, 'x')) {
          const differ = sectorsThatDiffer(cluster, step)
          const beyond = differ.filter((sector) => sector !== 0)
          // As it is written: all behind the first sector in any mix, then the first one.
          for (let mix = 0; mix < 2 ** beyond.length; mix++) {
            const torn = cluster.slice()
            beyond.forEach((sector, bit) => {
              if ((mix & (1 << bit)) === 0) return
              torn.set(step.subarray(sector * 512, (sector + 1) * 512), sector * 512)
            })
            const found = bitmapPointer(parseHeader(torn, 'x'))
            const isOld = JSON.stringify(strip(found)) === JSON.stringify(before)
            const isNew = JSON.stringify(strip(found)) === JSON.stringify(pointer)
            t.true(isOld || isNew, JSON.stringify([found, before, pointer]))
            t.is(parseHeader(torn, 'x').backingFile, backingFile)
          }
          cluster = step
        }
        t.deepEqual(strip(bitmapPointer(parseHeader(cluster, 'x'))), pointer)
        before = pointer
      }
      const after = parseHeader(cluster, 'x')
      t.is(after.backingFormat, names.backingFormat)
      t.is(after.backingFile, names.backingFile)
    })
  }
}

function strip(found: ReturnType<typeof bitmapPointer>): unknown {
  if (found === undefined) return undefined
  const { count, directoryBytes, directoryOffset } = found
  return { count, directoryBytes, directoryOffset }
}

test("in the stock tool's layout one sector switches", (t) => {
  const first = planBitmaps(header(16, undefined), pointers[0], 'x').at(-1) as Uint8Array
  const steps = planBitmaps(first, pointers[1], 'x')
  t.is(steps.length, 1)
  t.deepEqual(sectorsThatDiffer(first, steps[0] as Uint8Array), [1])
})
