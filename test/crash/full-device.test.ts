import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { openImage } from '../../lib/image/open.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { seedOfRun } from '../support/seeded-random.js'
import { faultWorkloads } from './fault-workloads.js'
import { fullLoop, turns } from './full-device.js'
import { countsOf, heldInOrder, openOnFull } from './held-order.js'

test.serial(
  'a guest on a full device is held, goes on with room, and nothing is lost or leaks',
  async (t) => {
    t.timeout(10 * 60_000)
    const seed = seedOfRun()
    t.log(`seed ${seed}`)
    let faults = 0
    let stops = 0
    const met = new Set<string>()
    for (const workload of await faultWorkloads()) {
      const loop = await fullLoop(workload, { seed })
      t.is(loop.problem, undefined)
      faults += loop.faults
      stops += loop.stops
      for (const meeting of loop.met) met.add(meeting)
    }
    t.log(`${faults} times full, ${stops} stops`)
    t.true(faults > 200)
    t.true(stops > 100)
    t.deepEqual([...met].sort(), ['data', 'header', 'metadata', 'reservation'])
  },
)

test('what is asked for while the guest is held arrives behind what is held, each place in its order', async (t) => {
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  let stops = 0
  for (let index = 0; index < 30; index++) {
    const run = await heldInOrder(index, seed)
    t.is(run.problem, undefined)
    stops += run.stops
  }
  t.true(stops > 10, `${stops} stops`)
})

for (const hasRoom of [false, true]) {
  test(`closing while the guest is held, ${hasRoom ? 'with room again' : 'on a full disk'}: clean errors, and what was flushed is kept`, async (t) => {
    let closedWhileHeld = 0
    for (let index = 0; index < 40; index++) {
      const { image, memory, device, isStopped } = await openOnFull(index, () => undefined)
      const requests: Promise<void>[] = []
      const flushed = new Map<number, number>()
      for (let value = 1; value <= 8 && !isStopped(); value++) {
        const offset = (64 + value) * 512
        requests.push(image.write(new Uint8Array(512).fill(value), offset))
        for (let turn = 0; turn < 50 && !isStopped(); turn++) await turns(1)
        if (isStopped() || value % 3 !== 0) continue
        const flush = image.flush()
        requests.push(flush)
        for (let turn = 0; turn < 50 && !isStopped(); turn++) await turns(1)
        if (!isStopped()) for (let done = 1; done <= value; done++) flushed.set((64 + done) * 512, done)
      }
      if (isStopped()) {
        closedWhileHeld++
        requests.push(image.flush(), image.discard({ offset: 0, length: 512 }))
      }
      if (hasRoom) device.makeRoom()
      const closing = image.close()
      const outcomes = await Promise.allSettled([...requests, closing])
      if (hasRoom) t.is(outcomes.at(-1)?.status, 'fulfilled')
      for (const outcome of outcomes) {
        if (outcome.status === 'fulfilled') continue
        t.true(outcome.reason instanceof Qcow2Error)
        t.is((outcome.reason as Qcow2Error).code, 'ERR_NO_SPACE')
      }
      const { corruptions, leaks } = await countsOf(memory)
      t.is(corruptions, 0)
      if (outcomes.at(-1)?.status === 'fulfilled') t.is(leaks, 0, `full from operation ${index} on`)
      const again = await openImage(new MemoryBackend({ contents: memory.contents }), { readOnly: true })
      for (const [offset, value] of flushed) t.is((await again.read({ offset, length: 1 }))[0], value)
      await again.close()
    }
    t.true(closedWhileHeld > 10, `${closedWhileHeld} closings`)
  })
}

test('resuming where nothing is held, and where it is closed, does nothing', async (t) => {
  const { image } = await openOnFull(1_000_000, () => t.fail())
  image.resume()
  await image.write(new Uint8Array(512), 0)
  image.resume()
  await image.close()
  image.resume()
  await t.throwsAsync(image.flush(), { code: 'ERR_CLOSED' })
})
