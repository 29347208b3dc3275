import { join } from 'node:path'
import { readFile } from 'node:fs/promises'
import test from 'ava'
import { createImage, openImage } from '../../lib/index.js'
import { openSuited } from '../../lib/image/open-suited.js'
import { qemuCheck } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const direct = { direct: true, syncPolicy: 'flush' } as const

test('an image whose clusters are smaller than the units of the host is opened with the page cache', async (t) => {
  for (const fast of [false, true]) {
    const folder = await makeFolder(t, { fast })
    for (const clusterSize of [512, 1024, 4096, 65536]) {
      const path = join(folder, `${clusterSize}.qcow2`)
      await createImage(path, { size: 1024 * 1024, clusterSize })
      const backend = await openSuited(path, { readOnly: false, cache: direct })
      t.true(backend.direct ? backend.alignment <= Math.min(clusterSize, 4096) : backend.alignment === 1)
      await backend.close()
      const image = await openImage(path, { cache: 'none' })
      t.is(image.direct, backend.direct)
      await image.write(new Uint8Array(5000).fill(3), 1001)
      await image.close()
      t.is(await qemuCheck(path), '')
    }
  }
})

test('readers and raw images go without it whatever the units are', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const qcow2 = join(folder, 'a.qcow2')
  const raw = join(folder, 'a.raw')
  await createImage(qcow2, { size: 1024 * 1024, clusterSize: 512 })
  await createImage(raw, { size: 1024 * 1024, format: 'raw' })
  for (const [path, readOnly] of [
    [qcow2, true],
    [raw, false],
  ] as const) {
    const backend = await openSuited(path, { readOnly, cache: direct })
    t.true(backend.direct)
    await backend.close()
  }
})

test('an unaligned write to a raw image does not change its length', async (t) => {
  const path = join(await makeFolder(t), 'a.raw')
  await createImage(path, { size: 1536, format: 'raw' })
  const image = await openImage(path, { format: 'raw', cache: 'none' })
  await image.write(Uint8Array.of(1, 2, 3), 1533)
  await image.close()
  const bytes = await readFile(path)
  t.is(bytes.length, 1536)
  t.deepEqual([...bytes.subarray(1532)], [0, 1, 2, 3])
})
