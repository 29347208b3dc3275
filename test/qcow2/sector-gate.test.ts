import test from 'ava'
import { type SectorAccess, SectorGate } from '../../lib/qcow2/sector-gate.js'

const now = (entered: SectorAccess | Promise<SectorAccess>): SectorAccess => {
  if (entered instanceof Promise) throw new Error('has to wait')
  return entered
}

test('whole sectors are written and read at once, on one place too', (t) => {
  const gate = new SectorGate()
  const all = [gate.enter(0, 9, 'whole'), gate.enter(5, 5, 'whole'), gate.enter(0, 20, 'read')]
  t.true(all.every((entered) => !(entered instanceof Promise)))
})

test('a part of a sector waits for all that use it, and they for it, in order', async (t) => {
  const gate = new SectorGate()
  const whole = now(gate.enter(3, 7, 'whole'))
  const part = gate.enter(7, 7, 'part')
  t.true(part instanceof Promise)
  const order: string[] = []
  const after = (name: string, entered: SectorAccess | Promise<SectorAccess>): Promise<void> =>
    Promise.resolve(entered).then((access) => {
      order.push(name)
      gate.leave(access)
    })
  const later = [
    after('part', part),
    after('read', gate.enter(7, 8, 'read')),
    after('whole', gate.enter(0, 9, 'whole')),
  ]
  t.true(gate.enter(9, 9, 'part') instanceof Promise, 'behind the one that waits for the same')
  now(gate.enter(10, 10, 'part'))
  await new Promise(setImmediate)
  t.deepEqual(order, [])
  gate.leave(whole)
  await later[0]
  t.is(order[0], 'part')
})

test('elsewhere nobody waits', (t) => {
  const gate = new SectorGate()
  now(gate.enter(7, 7, 'part'))
  now(gate.enter(8, 8, 'part'))
  now(gate.enter(0, 6, 'whole'))
  t.true(gate.enter(6, 7, 'read') instanceof Promise)
})
