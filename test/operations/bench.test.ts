import { join } from 'node:path'
import test from 'ava'
import { benchImage, createImage, openImage } from '../../lib/index.js'
import { DiskImage } from '../../lib/image/disk-image.js'
import { replace } from '../crash/mutant-tools.js'
import { makeFolder } from '../support/temp-folder.js'

test('requests step through the disk, begin anew behind its end, and are flushed as often as asked', async (t) => {
  const path = join(await makeFolder(t, { fast: true }), 'disk.qcow2')
  await createImage(path, { size: 1024 * 1024 })
  let flushes = 0
  const undo = replace(
    DiskImage.prototype,
    'flush',
    (original) =>
      function (this: DiskImage) {
        flushes++
        return original.call(this)
      },
  )
  t.teardown(undo)
  for (const drain of [true, false]) {
    flushes = 0
    const options = {
      write: true,
      count: 10,
      depth: 3,
      bufferSize: 512,
      step: 300 * 512,
      offset: 512,
      pattern: 7,
    }
    const { milliseconds } = await benchImage(path, { ...options, flushInterval: 4, drain })
    t.true(milliseconds >= 0)
    t.is(flushes, 2)
    const image = await openImage(path, { readOnly: true })
    const bytes = await image.read({ offset: 0, length: 1024 * 1024 })
    await image.close()
    const written = new Set<number>()
    for (let at = 0; at < bytes.length; at += 512) if (bytes[at] === 7) written.add(at / 512)
    const wanted = Array.from({ length: 10 }, (_, index) => (1 + 300 * index) % 2048)
    t.deepEqual([...written].sort(), wanted.sort())
  }
})

test('a request that is not within the disk ends it; so do figures that cannot be', async (t) => {
  const path = join(await makeFolder(t, { fast: true }), 'disk.qcow2')
  await createImage(path, { size: 1024 * 1024 })
  await t.throwsAsync(benchImage(path, { count: 5, offset: 1024 * 1024 - 512 }), { instanceOf: RangeError })
  await t.throwsAsync(benchImage(path, { write: true, flushInterval: 2 }), { code: 'ERR_INVALID_OPTION' })
  t.true((await benchImage(path, { count: 0 })).milliseconds >= 0)
})
