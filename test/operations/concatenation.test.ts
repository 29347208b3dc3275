import { join } from 'node:path'
import test from 'ava'
import { createImage, openImage } from '../../lib/index.js'
import { Concatenation } from '../../lib/operations/concatenation.js'
import { makeFolder } from '../support/temp-folder.js'

test('disks one behind the other read as one', async (t) => {
  const folder = await makeFolder(t)
  const disks = []
  for (const [index, size] of [1024, 0, 512, 2048].entries()) {
    const path = join(folder, `${index}`)
    await createImage(path, { size, format: index === 2 ? 'raw' : 'qcow2' })
    const disk = await openImage(path, { format: index === 2 ? 'raw' : 'qcow2' })
    if (size > 0) await disk.write(new Uint8Array(size).fill(index + 1), 0)
    disks.push(disk)
  }
  const all = new Concatenation(disks)
  t.is(all.size, 3584)
  const bytes = new Uint8Array(1000)
  await all.readInto(bytes, 900)
  const expected = new Uint8Array(1000).fill(1, 0, 124).fill(3, 124, 636).fill(4, 636)
  t.deepEqual(bytes, expected)
  let end = 0
  for await (const extent of all.extents()) {
    t.is(extent.offset, end)
    end += extent.length
  }
  t.is(end, 3584)
  for (const disk of disks) await disk.close()
})
