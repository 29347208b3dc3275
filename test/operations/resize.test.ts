import { join } from 'node:path'
import test from 'ava'
import { createImage, imageInfo, resizeImage } from '../../lib/index.js'
import { makeFolder } from '../support/temp-folder.js'

for (const format of ['qcow2', 'raw'] as const) {
  test(`a ${format} image takes a size, or a difference`, async (t) => {
    const path = join(await makeFolder(t), 'disk')
    await createImage(path, { size: 1024 * 1024, format })
    const options = { format, shrink: true }
    t.deepEqual(await resizeImage(path, 2 * 1024 * 1024, options), {
      before: 1024 * 1024,
      after: 2 * 1024 * 1024,
    })
    t.deepEqual(await resizeImage(path, { by: 1 }, options), {
      before: 2 * 1024 * 1024,
      after: 2 * 1024 * 1024 + 512,
    })
    t.deepEqual(await resizeImage(path, { by: -1024 * 1024 }, options), {
      before: 2 * 1024 * 1024 + 512,
      after: 1024 * 1024 + 512,
    })
    t.is((await imageInfo(path, { format })).virtualSize, 1024 * 1024 + 512)
  })
}

test('an image shrinks only if that is meant, and never below nothing', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 1024 * 1024 })
  await t.throwsAsync(resizeImage(path, 512), { code: 'ERR_OUT_OF_RANGE', message: /shrink: true/ })
  await t.throwsAsync(resizeImage(path, { by: -512 }), { code: 'ERR_OUT_OF_RANGE' })
  await t.throwsAsync(resizeImage(path, { by: -2 * 1024 * 1024 }, { shrink: true }), {
    code: 'ERR_OUT_OF_RANGE',
    message: /has 1048576 bytes, fewer than the 2097152/,
  })
  await t.throwsAsync(resizeImage(path, '1M' as unknown as number), { code: 'ERR_INVALID_ARGUMENT' })
  t.is((await imageInfo(path)).virtualSize, 1024 * 1024)
})
