import test from 'ava'
import { checkedClean, diskByQemu, fill, newDisk, reopen } from '../support/qcow2-disk.js'

test('an opened image knows every table it has', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512, refcountBits: 64 })
  for (let at = 0; at < 2 ** 20; at += 65536) await disk.image.write(fill(512, 1), at)
  await reopen(disk)
  const { parts } = disk
  t.is(parts.metadata.kindOf(0), 'header')
  t.is(parts.metadata.kindOf(parts.table.host / 512), 'refcount table')
  t.is(parts.metadata.kindOf(parts.l1.host / 512), 'L1 table')
  t.is(parts.metadata.kindOf((parts.table.block(0) ?? 0) / 512), 'refcount block')
  let tables = 0
  for (let index = 0; index < parts.l1.entries; index++) {
    const table = parts.l1.table(index)
    if (table === undefined) continue
    tables++
    t.is(parts.metadata.kindOf(table.host / 512), 'L2 table')
  }
  t.is(tables, 16)
  const mapping = await disk.image.mapping(0, 512)
  t.is(mapping.type === 'data' ? parts.metadata.kindOf(mapping.hostOffset / 512) : 'not data', undefined)
  await checkedClean(t, disk)
})

test('the tables of snapshots are known too', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=512', 'disk.qcow2', '1M'],
    io: ['write -P 1 0 64k'],
    then: [
      ['snapshot', '-c', 'one', 'disk.qcow2'],
      ['snapshot', '-c', 'two', 'disk.qcow2'],
    ],
  })
  const kinds = new Map<string, number>()
  for (let cluster = 0; cluster < disk.backend.length / 512; cluster++) {
    const kind = disk.parts.metadata.kindOf(cluster)
    if (kind !== undefined) kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
  }
  t.is(kinds.get('snapshot table'), 1)
  t.is(kinds.get('inactive L1 table'), 2)
  t.is(kinds.get('header'), 1)
  await checkedClean(t, disk)
})
