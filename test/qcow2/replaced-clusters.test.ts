import test from 'ava'
import { noSection } from '../../lib/base/units.js'
import { freeReplaced, refuseMetadata } from '../../lib/qcow2/replaced-clusters.js'
import { newDisk } from '../support/qcow2-disk.js'

test('an entry that names a table is not replaced', async (t) => {
  const { parts } = await newDisk({ size: 65536, clusterSize: 4096 })
  const table = { type: 'normal', host: 4096 as never, copied: true } as const
  t.throws(() => refuseMetadata(parts, table, 4096), { code: 'ERR_CORRUPT' })
  const compressed = { type: 'compressed', host: 4000 as never, bytes: 200 } as const
  t.throws(() => refuseMetadata(parts, compressed, 4096), { code: 'ERR_CORRUPT' }, 'it reaches into one')
  t.notThrows(() => refuseMetadata(parts, { type: 'unallocated' }, 4096))
  t.notThrows(() => refuseMetadata(parts, { ...table, host: 0x100000 as never }, 4096))
})

test('what an entry mapped is freed: clusters, the bytes of a compressed one, one that is kept for zeros, or nothing', async (t) => {
  const { parts } = await newDisk({ size: 65536, clusterSize: 4096 })
  const freed: [number, number, boolean][] = []
  parts.frees.add = (host, length, { punch }) => freed.push([host, length, punch])
  const host = 0x100000 as never
  freeReplaced(parts, { type: 'normal', host, copied: false }, 3, noSection)
  freeReplaced(parts, { type: 'compressed', host, bytes: 700 }, 1, noSection)
  freeReplaced(parts, { type: 'zero', host, copied: true }, 1, noSection)
  freeReplaced(parts, { type: 'zero', host: undefined, copied: false }, 1, noSection)
  freeReplaced(parts, { type: 'unallocated' }, 1, noSection)
  freeReplaced(parts, { type: 'unallocated', host }, 1, noSection)
  t.deepEqual(freed, [
    [0x100000, 12288, false],
    [0x100000, 700, false],
    [0x100000, 4096, false],
    [0x100000, 4096, false],
  ])
})
