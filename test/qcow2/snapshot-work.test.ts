import test from 'ava'
import type { Progress } from '../../lib/base/abort.js'
import { settle, snapshotNotFound, stepsOf } from '../../lib/qcow2/snapshot-work.js'
import { fill, newDisk } from '../support/qcow2-disk.js'

test('steps tell how far a phase is, and end it when the work is given up', (t) => {
  const seen: Progress[] = []
  const controller = new AbortController()
  const steps = stepsOf({ signal: controller.signal, onProgress: (progress) => seen.push(progress) })
  const step = steps('references')
  step(0, 100)
  step(50, 100)
  step(100, 100)
  t.deepEqual(
    seen.map(({ phase, bytesDone, bytesTotal }) => [phase, bytesDone, bytesTotal]),
    [
      ['references', 0, 100],
      ['references', 50, 100],
      ['references', 100, 100],
    ],
  )
  controller.abort(new Error('enough'))
  t.throws(() => steps('flags')(0, 1), { message: 'enough' })
})

test('once settled nothing waits to be freed: counts are the references', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
  await disk.image.write(fill(2048, 1), 0)
  await disk.image.flush()
  await disk.image.discard(0, 2048)
  t.true(disk.parts.frees.pending)
  await settle(disk.parts)
  t.false(disk.parts.frees.pending)
  t.true((await disk.parts.allocator.counts(4, 8)).includes(0))
  await disk.image.close()
})

test('what is not found is named as it was asked for', (t) => {
  t.is(snapshotNotFound('f', 'x\n').message, "There is no snapshot 'x\\u{a}' in 'f'")
  t.is(snapshotNotFound('f', { id: '1', name: 'y' }).message, "There is no snapshot id '1', 'y' in 'f'")
  t.is(snapshotNotFound('f', 'x').code, 'ERR_SNAPSHOT_NOT_FOUND')
})
