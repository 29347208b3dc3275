import { join } from 'node:path'
import { writeFile } from 'node:fs/promises'
import test from 'ava'
import { type CacheOptions, createImage, type CreateOptions, openImage } from '../../lib/index.js'
import { passphrase, qemuCheckEncrypted, qemuReadEncrypted } from '../support/encrypted.js'
import { qemuCheck, qemuImg, qemuRead } from '../support/qemu.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 16 * 1024 * 1024

/** Each with what the image is opened with, and whether its writes come to where zeros were written. */
const shapes: Readonly<
  Record<string, { create: Partial<CreateOptions>; cache?: CacheOptions; zeros: boolean }>
> = {
  'clusters of 64 KiB': { create: {}, zeros: true },
  'clusters of 64 KiB, O_DIRECT': { create: {}, cache: { mode: 'none' }, zeros: true },
  'clusters of 64 KiB, every write synced': { create: {}, cache: { mode: 'directsync' }, zeros: true },
  'clusters of 512 bytes': { create: { clusterSize: 512 }, zeros: true },
  'clusters of 512 bytes, O_DIRECT': { create: { clusterSize: 512 }, cache: { mode: 'none' }, zeros: true },
  'clusters of 2 MiB, which are too large for it': {
    create: { clusterSize: 2 ** 21 },
    cache: { mode: 'none' },
    zeros: false,
  },
  'extended L2 entries': { create: { extendedL2: true }, cache: { mode: 'none' }, zeros: true },
  'a data file, whose own space is not reserved': { create: { dataFile: 'data' }, zeros: false },
  encryption: {
    create: { encrypt: { format: 'luks', passphrase, iterTime: 1 } },
    cache: { mode: 'none' },
    zeros: true,
  },
}

for (const [name, { create, cache, zeros }] of Object.entries(shapes)) {
  test(`durable writes ahead of which zeros are written leave what the stock tool finds right: ${name}`, async (t) => {
    const random = new SeededRandom(seedOfRun())
    const folder = await makeFolder(t)
    const path = join(folder, 'disk')
    const { encrypt, dataFile, ...rest } = create
    await createImage(path, {
      size,
      ...rest,
      ...(encrypt === undefined ? {} : { encrypt }),
      ...(dataFile === undefined ? {} : { dataFile: join(folder, dataFile) }),
    })
    const image = await openImage(path, {
      dataFile: 'allow',
      cache: { ...cache, reservation: 8, preallocation: 'full' },
      ...(encrypt === undefined ? {} : { encryption: { passphrase } }),
    })
    const model = Buffer.alloc(size)
    let written = 0
    for (let count = 1; count < 150; count++) {
      const bytes = Buffer.alloc(512 * (1 + random.integer(16)), count)
      const offset = random.integer((size - bytes.length) / 512) * 512
      await image.write(bytes, offset, { fua: count % 2 === 0 })
      if (count % 2 === 1) await image.flush()
      model.set(bytes, offset)
      written += bytes.length
    }
    if (encrypt === undefined) t.is(image.stats().dataWriteBytes > written, zeros)
    await image.close()
    if (encrypt !== undefined) {
      t.is(await qemuCheckEncrypted(path), '')
      t.true(model.equals(await qemuReadEncrypted(path)))
      return
    }
    t.is(await qemuCheck(path), '')
    t.true(model.equals(await qemuRead(path)))
    await writeFile(join(folder, 'model'), model)
    t.regex(await qemuImg('compare', '-f', 'qcow2', path, '-F', 'raw', join(folder, 'model')), /identical/)
  })
}
