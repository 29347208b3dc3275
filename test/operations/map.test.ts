import { join } from 'node:path'
import test from 'ava'
import { createImage, type MapEntry, mapImage, type MapOptions, openImage } from '../../lib/index.js'
import { makeFolder } from '../support/temp-folder.js'

async function mapOf(path: string, options?: MapOptions): Promise<MapEntry[]> {
  const entries: MapEntry[] = []
  for await (const entry of mapImage(path, options)) entries.push(entry)
  return entries
}

test('each run names the file that holds it, and a range can be asked for', async (t) => {
  const folder = await makeFolder(t)
  const base = join(folder, 'base.raw')
  const path = join(folder, 'disk.qcow2')
  await createImage(base, { size: 512 * 1024, format: 'raw', preallocation: 'full' })
  await createImage(path, { size: 1024 * 1024, backingFile: 'base.raw', backingFormat: 'raw' })
  const image = await openImage(path)
  await image.write(new Uint8Array(65536).fill(1), 65536)
  await image.close()
  const entries = await mapOf(path)
  t.deepEqual(
    entries.map(({ offset, length, depth, allocated, file }) => [
      offset / 65536,
      length / 65536,
      depth,
      allocated,
      file,
    ]),
    [
      [0, 1, 1, true, base],
      [1, 1, 0, true, path],
      [2, 6, 1, true, base],
      [8, 8, 0, false, path],
    ],
  )
  const part = await mapOf(path, { offset: 100_000, length: 100_000 })
  t.deepEqual(
    part.map(({ offset, length }) => [offset, length]),
    [
      [100_000, 31_072],
      [131_072, 68_928],
    ],
  )
})

test('leaving the loop closes the image', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 1024 * 1024 })
  for await (const entry of mapImage(path)) {
    t.is(entry.offset, 0)
    break
  }
  await (await openImage(path)).close()
})

test('a range beyond the end is refused', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 1024 * 1024 })
  await t.throwsAsync(mapOf(path, { offset: 1024 * 1024, length: 1 }), { code: 'ERR_OUT_OF_RANGE' })
  await t.throwsAsync(mapOf(path, { start: 1 } as MapOptions), { code: 'ERR_INVALID_OPTION' })
})
