import test from 'ava'
import { Context } from '../../lib/queue/context.js'
import { seedOfRun, SeededRandom } from '../support/seeded-random.js'
import { type BackendFactory, filled, read, sameBytes, unit } from './backend-contract.js'

/** Register the tests of `writeDurably` that every backend has to pass. @param name  begins their titles */
export function testDurableWrites(name: string, open: BackendFactory): void {
  test(`${name}: bytes and what is queued become durable by one request and one sync`, async (t) => {
    const backend = await open(t)
    const placed = new Context(backend).write(filled(1), 0)
    await backend.writeDurably(filled(2), unit)
    t.true(backend.durableSection >= placed)
    sameBytes(t, await read(backend, 0, 2 * unit), Buffer.concat([filled(1), filled(2)]))
    const { syncsIssued, barriersIssued, flushesAsked, dataWrites, dataWriteBytes } = backend.stats()
    t.deepEqual([syncsIssued, barriersIssued, flushesAsked, dataWrites, dataWriteBytes], [1, 0, 1, 1, unit])
    await backend.close()
  })

  test(`${name}: what is queued behind a barrier is written behind it, whatever becomes durable with it`, async (t) => {
    const backend = await open(t)
    const context = new Context(backend)
    context.write(filled(1), 0)
    context.barrier()
    const last = context.write(filled(2), unit)
    await backend.writeDurably(filled(3), 2 * unit)
    t.true(backend.durableSection >= last)
    sameBytes(t, await read(backend, 0, 3 * unit), Buffer.concat([filled(1), filled(2), filled(3)]))
    t.is(backend.stats().syncsIssued, 2)
    await backend.close()
  })

  test(`${name}: writes that are to be durable may come many at once, of any place and length`, async (t) => {
    const backend = await open(t)
    const seed = seedOfRun()
    t.log(`seed ${seed}`)
    const random = new SeededRandom(seed)
    const pieces = Array.from({ length: 40 }, (_, index) =>
      random.bytes(1 + random.integer(3000)).fill(index, 0, 1),
    )
    await Promise.all(pieces.map((bytes, index) => backend.writeDurably(bytes, index * unit + 7)))
    for (const [index, bytes] of pieces.entries())
      sameBytes(t, await read(backend, index * unit + 7, bytes.length), bytes)
    t.true(backend.stats().syncsIssued <= 40)
    await backend.close()
    await t.throwsAsync(backend.writeDurably(filled(1), 0), { code: 'ERR_CLOSED' })
  })
}
