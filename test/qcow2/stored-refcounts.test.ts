import test from 'ava'
import { StoredRefcounts } from '../../lib/qcow2/stored-refcounts.js'
import { checkStateOf, emptyImage } from '../support/check-state-of.js'

test('what the comparison knows is not read again, the rest comes from the file', async (t) => {
  const image = emptyImage()
  image.writeUInt16BE(5, 1024 + 2 * 200)
  const { state, backend } = await checkStateOf(image)
  state.counts.set(3, 9)
  const stored = new StoredRefcounts(state)
  t.is(stored.known(3), 9)
  t.is(await stored.get(3), 9)
  t.is(stored.known(200), undefined)
  let reads = 0
  const readQueued = backend.readQueued.bind(backend)
  backend.readQueued = (bytes, offset) => {
    reads++
    return readQueued(bytes, offset)
  }
  t.is(await stored.get(200), 5)
  t.is(await stored.get(201), 0)
  t.is(reads, 2)
})

test('where there is no block, or no room for one in the table, the count is 0', async (t) => {
  const { state } = await checkStateOf(emptyImage())
  const stored = new StoredRefcounts(state)
  t.is(await stored.get(256), 0)
  t.is(await stored.get(64 * 256), 0)
  t.is(await stored.get(2 ** 44), 0)
})

test('a block that cannot be read is not a count', async (t) => {
  const image = emptyImage()
  image.writeBigUInt64BE(1n << 63n, 520)
  const { state } = await checkStateOf(image)
  t.is(await new StoredRefcounts(state).get(256), undefined)
})
