import { join } from 'node:path'
import test from 'ava'
import { checkOptions } from '../../lib/base/options.js'
import { createImage, openImage, Qcow2Error } from '../../lib/index.js'
import { chainWorkOf, chainWorkSchema, openForWork } from '../../lib/operations/chain-work.js'
import { makeFolder } from '../support/temp-folder.js'

test('what is not given is the careful choice: locks, the same folder, nothing reserved ahead', (t) => {
  const work = chainWorkOf(checkOptions('f', {}, chainWorkSchema))
  t.like(work, { gate: 'same-directory', locking: true, format: undefined })
  t.is(work.cache.reservation, 0)
  const given = chainWorkOf(checkOptions('f', { locking: 'off', cache: { reservation: 4 } }, chainWorkSchema))
  t.false(given.locking)
  t.is(given.cache.reservation, 4)
})

test('the image is opened for writing, under its locks', async (t) => {
  const path = join(await makeFolder(t), 'a.qcow2')
  await createImage(path, { size: 65536 })
  const image = await openForWork(path, chainWorkOf({}))
  t.false(image.readOnly)
  const locked = await t.throwsAsync(openImage(path), { instanceOf: Qcow2Error })
  t.is(locked?.code, 'ERR_IMAGE_LOCKED')
  await image.close()
})
