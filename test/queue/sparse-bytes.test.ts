import test from 'ava'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { seedOfRun, SeededRandom } from '../support/seeded-random.js'
import { sameBytes } from './backend-contract.js'

test('what was never written reads as zeros, also past the end', (t) => {
  const sparse = SparseBytes.from(Uint8Array.of(1, 2, 3))
  const bytes = new Uint8Array(6).fill(9)
  sparse.read(bytes, 1)
  t.deepEqual([...bytes], [2, 3, 0, 0, 0, 0])
  t.is(sparse.length, 3)
})

test('an extent is as long as what is stored alike', (t) => {
  const sparse = new SparseBytes()
  sparse.extend(100_000)
  t.deepEqual(sparse.extent(0), { length: 100_000, data: false })
  sparse.write(Uint8Array.of(1), 8192)
  sparse.write(Uint8Array.of(1), 12288)
  t.deepEqual(sparse.extent(0), { length: 8192, data: false })
  t.deepEqual(sparse.extent(10), { length: 8182, data: false })
  t.deepEqual(sparse.extent(8200), { length: 8184, data: true })
  t.deepEqual(sparse.extent(16384), { length: 100_000 - 16384, data: false })
  t.deepEqual(sparse.extent(100_000), { length: 0, data: false })
  sparse.clear(8192, 4096)
  t.deepEqual(sparse.extent(0), { length: 12288, data: false }, 'a hole again')
})

test('clearing terabytes takes no longer than what is in them', (t) => {
  const sparse = new SparseBytes()
  const terabyte = 1024 ** 4
  sparse.write(Uint8Array.of(1, 2, 3), 5 * terabyte)
  sparse.clear(0, 5 * terabyte + 1)
  const bytes = new Uint8Array(3)
  sparse.read(bytes, 5 * terabyte)
  t.deepEqual([...bytes], [0, 2, 3])
  t.is(sparse.length, 5 * terabyte + 3)
  sparse.clear(0, 8 * terabyte)
  t.deepEqual(sparse.extent(0), { length: 5 * terabyte + 3, data: false })
})

test('random changes leave what a byte array would hold', (t) => {
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  const random = new SeededRandom(seed)
  const size = 40_000
  let model = new Uint8Array(0)
  const sparse = new SparseBytes()
  const resize = (length: number): void => {
    const longer = new Uint8Array(length)
    longer.set(model.subarray(0, length))
    model = longer
  }
  for (let round = 0; round < 500; round++) {
    const offset = random.integer(size)
    const length = random.integer(random.pick([10, 5000, 20_000]))
    const action = random.integer(5)
    if (action === 0) {
      sparse.truncate(offset)
      resize(offset)
    } else if (action === 1) {
      sparse.clear(offset, length)
      model.fill(0, offset, offset + length)
    } else {
      const bytes = random.bytes(length)
      sparse.write(bytes, offset)
      if (offset + length > model.length) resize(offset + length)
      model.set(bytes, offset)
    }
    t.is(sparse.length, model.length)
    sameBytes(t, sparse.toBytes(), model)
  }
})
