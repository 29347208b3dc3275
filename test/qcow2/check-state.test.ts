import test from 'ava'
import { findingsKept } from '../../lib/qcow2/check-result.js'
import { hex64 } from '../../lib/qcow2/check-state.js'
import { checkStateOf, emptyImage, imageWith } from '../support/check-state-of.js'

test('each cluster that the bytes touch is counted once', async (t) => {
  const { state } = await checkStateOf(imageWith({}, {}, {}))
  state.count(511, 514)
  state.count(1024, 512)
  state.count(3000, 0)
  t.deepEqual(
    [0, 1, 2, 3, 4, 5].map((cluster) => state.counts.get(cluster)),
    [1, 1, 2, 0, 0, 0],
  )
})

test('the last cluster may be short, a missing one is a corruption and not counted', async (t) => {
  const { state, texts } = await checkStateOf(emptyImage().subarray(0, 3 * 512 + 256))
  state.count(3 * 512, 512)
  t.is(state.counts.get(3), 1)
  state.count(3 * 512 + 512, 512)
  t.is(state.counts.get(4), 0)
  t.is(state.result.corruptions, 1)
  t.deepEqual(texts, [
    'ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x800 size 0x200',
  ])
})

test('what sticks out of the file by less than a cluster is compared too', async (t) => {
  const { state } = await checkStateOf(emptyImage())
  t.is(state.clusterCount, 4)
  state.count(3 * 512 + 100, 512)
  t.is(state.clusterCount, 5)
})

test('more references than a refcount can hold are told, and the cluster is not relied on', async (t) => {
  const { state, texts } = await checkStateOf(emptyImage({ refcountOrder: 0 }))
  state.count(0, 512)
  t.true(state.isExact(0))
  state.count(0, 512)
  t.is(state.counts.get(0), 1)
  t.false(state.isExact(0))
  t.true(state.isExact(1))
  t.is(texts[0], 'ERROR: overflow cluster offset=0x0')
  t.is(state.result.corruptions, 1)
})

test('an L2 table may be written if it is nothing else', async (t) => {
  const { state } = await checkStateOf(imageWith({}, {}, {}))
  for (const cluster of [4, 5]) {
    state.l2References.set(cluster, 1)
    state.count(cluster * 512, 512)
  }
  state.count(5 * 512, 512) // as data, too
  state.count(6 * 512, 512) // data alone
  state.count(3 * 512, 256) // the L1
  state.findOverlaps()
  t.true(state.mayWriteL2(4 * 512))
  t.false(state.mayWriteL2(5 * 512))
  t.false(state.mayWriteL2(6 * 512))
  t.false(state.mayWriteL2(4 * 512 + 8))
  t.true(state.mayWriteL1)
})

test('an L1 that is something else is not written', async (t) => {
  const { state } = await checkStateOf(emptyImage())
  state.count(3 * 512, 256)
  state.count(3 * 512, 512)
  state.findOverlaps()
  t.false(state.mayWriteL1)
})

test('all findings are told, the first are kept', async (t) => {
  const { state, found } = await checkStateOf(emptyImage())
  for (let cluster = 0; cluster < findingsKept + 5; cluster++) state.leak('Leaked', { cluster })
  t.is(found.length, findingsKept + 5)
  t.is(state.result.findings.length, findingsKept)
  t.is(state.result.leaks, findingsKept + 5)
})

test('a step stops when asked to', async (t) => {
  const controller = new AbortController()
  const steps: unknown[] = []
  const { state } = await checkStateOf(emptyImage(), {
    signal: controller.signal,
    onProgress: (progress) => steps.push(progress),
  })
  state.step('flags', 1, 2)
  t.deepEqual(steps, [{ phase: 'flags', bytesDone: 1, bytesTotal: 2 }])
  controller.abort(new Error('enough'))
  t.throws(() => state.step('flags', 2, 2), { message: 'enough' })
})

test('entries are printed as 64 bits', (t) => {
  t.is(hex64(0x80000000, 0x50000), '8000000000050000')
  t.is(hex64(0, 1), '1')
  t.is(hex64(-1, -1), 'ffffffffffffffff')
})
