import test from 'ava'
import { readL2Tables, snapshotL1Fault, snapshotL1s } from '../../lib/qcow2/check-l1.js'
import { at, checkStateOf, copied, imageWith } from '../support/check-state-of.js'

test('the L2 tables come in the order of their L1 entries', async (t) => {
  const image = imageWith({ 0: 7n }, { 0: 8n })
  image.writeBigUInt64BE(copied | at(5), 3 * 512 + 8)
  image.writeBigUInt64BE(at(4), 3 * 512 + 8 * 31)
  const { state } = await checkStateOf(image)
  const found: unknown[] = []
  for await (const { table, l1Index, high, low } of readL2Tables(state, 3 * 512, 32, 'references')) {
    found.push([l1Index, table.offset, Number(table.view.getBigUint64(0)), high, low])
  }
  t.deepEqual(found, [
    [1, 2560, 8, 0x80000000, 2560],
    [31, 2048, 7, 0, 2048],
  ])
})

test('L1 tables of snapshots that cannot be are left out', async (t) => {
  const { state } = await checkStateOf(imageWith({}))
  const snapshot = (offset: bigint, l1Entries: number) => ({
    ...{ entryOffset: 0, l1Offset: Number(offset), l1OffsetStored: offset, l1Entries, extraBytes: 16 },
    ...{ id: '1', name: 'a' },
  })
  const [good, crooked, long, far] = [
    snapshot(2048n, 32),
    snapshot(2056n, 32),
    snapshot(2048n, 0x400001),
    snapshot((1n << 60n) + 8n, 1),
  ]
  t.is(snapshotL1Fault(state, good), undefined)
  t.is(snapshotL1Fault(state, crooked), 'l1_offset=0x808: L1 table is not cluster aligned')
  t.is(snapshotL1Fault(state, long), 'l1_size=0x400001: L1 table is too large')
  t.is(snapshotL1Fault(state, far), 'l1_offset=0x1000000000000008: L1 table is not cluster aligned')
  t.deepEqual(snapshotL1s(state, [good, crooked, long, far]), [{ offset: 2048, entries: 32 }])
})
