import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { checkImage, createImage, imageInfo, type Progress, resizeImage } from '../../lib/index.js'
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

for (const format of ['qcow2', 'raw'] as const) {
  test(`preallocating what a ${format} image grows by tells how far it is, and stops when it is aborted`, async (t) => {
    const path = join(await makeFolder(t), 'disk')
    await createImage(path, { size: 1024 * 1024, format })
    const { size } = await stat(path)
    const controller = new AbortController()
    const reason = new Error('enough')
    const stopping = resizeImage(path, 256 * 1024 * 1024, {
      format,
      preallocation: 'full',
      signal: controller.signal,
      onProgress: ({ bytesDone }) => {
        if (bytesDone > 0) controller.abort(reason)
      },
    })
    await t.throwsAsync(stopping, { is: reason })
    t.is((await imageInfo(path, { format })).virtualSize, 1024 * 1024)
    t.true((await stat(path)).size <= size + 2 * 65536)

    const told: Progress[] = []
    const onProgress = (progress: Progress): void => void told.push(progress)
    await resizeImage(path, 9 * 1024 * 1024, { format, preallocation: 'falloc', onProgress })
    const bytesTotal = 8 * 1024 * 1024
    t.deepEqual(told[0], { phase: 'resize', bytesDone: 0, bytesTotal })
    t.deepEqual(told.at(-1), { phase: 'resize', bytesDone: bytesTotal, bytesTotal })
    if (format === 'qcow2') t.like(await checkImage(path), { corruptions: 0, leaks: 0 })
  })
}
