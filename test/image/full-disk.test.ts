import { readdir, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  convertImage,
  createImage,
  type DiskImage,
  imageInfo,
  type ImageEvent,
  openImage,
  type OpenOptions,
  Qcow2Error,
  resizeImage,
} from '../../lib/index.js'
import { mayMount, mountSmall } from '../support/mounts.js'
import { qemuCheck, qemuRead } from '../support/qemu.js'
import { SeededRandom } from '../support/seeded-random.js'

const size = 32 * 1024 * 1024
const testMounted = mayMount() ? test.serial : test.serial.skip

/** An image on a small file system, with a file beside it whose removal makes room. */
async function makeImage(
  t: ExecutionContext,
  kind: 'tmpfs' | 'ext4',
  options: OpenOptions = {},
): Promise<{ image: DiskImage; path: string; makeRoom: () => Promise<void> }> {
  const { folder } = await mountSmall(t, kind, 12)
  const path = join(folder, 'disk')
  await createImage(path, { size })
  await writeFile(join(folder, 'ballast'), new Uint8Array(6 * 1024 * 1024).fill(1))
  const image = await openImage(path, options)
  t.teardown(() => image.close().catch(() => undefined))
  return { image, path, makeRoom: () => rm(join(folder, 'ballast')) }
}

/** Write cluster after cluster until there is no space. @returns how many were written */
async function fillUp(image: DiskImage): Promise<number> {
  for (let cluster = 0; ; cluster++) {
    try {
      await image.write(new Uint8Array(65536).fill(cluster + 1), cluster * 65536)
      if (cluster % 8 === 7) await image.flush()
    } catch (error) {
      if (error instanceof Qcow2Error && error.code === 'ERR_NO_SPACE') return cluster
      throw error
    }
  }
}

/** A guest's process with a part of the disk for itself: new clusters, parts of them, and discards, each request after the other. */
async function writeRegion(image: DiskImage, expected: Uint8Array, writer: number): Promise<void> {
  const random = new SeededRandom(writer)
  const clusters = 20
  const first = writer * clusters * 65536
  for (let step = 0; step < 40; step++) {
    const offset = first + random.integer(clusters) * 65536
    const length = random.pick([4096, 65536, 65536])
    if (random.chance(0.15)) {
      await image.writeZeroes({ offset, length: 65536, unmap: true })
      expected.fill(0, offset, offset + 65536)
      continue
    }
    const at = offset + random.integer(65536 / length) * length
    const value = 1 + random.integer(255)
    await image.write(new Uint8Array(length).fill(value), at)
    expected.fill(value, at, at + length)
    if (step % 8 === 7) await image.flush()
  }
}

for (const kind of ['tmpfs', 'ext4'] as const) {
  for (const cache of ['writeback', 'none', 'writethrough'] as const) {
    testMounted(
      `a full ${kind} is told of, and with room again everything goes on, cache=${cache}`,
      async (t) => {
        const { image, path, makeRoom } = await makeImage(t, kind, { cache })
        const written = await fillUp(image)
        t.true(written > 10, `${written} clusters`)
        const readBack = await image.read({ offset: 0, length: written * 65536 })
        await makeRoom()
        const more = new Uint8Array(65536).fill(99)
        await image.write(more, (written + 1) * 65536)
        await image.flush()
        await image.close()
        t.is(await qemuCheck(path), '')
        const seen = await qemuRead(path, 'qcow2', join(dirname(path), '..', 'copy'))
        for (let cluster = 0; cluster < written; cluster++) {
          t.is(readBack[cluster * 65536 + 1000], cluster + 1)
          t.is(seen[cluster * 65536 + 1000], cluster + 1, `cluster ${cluster}`)
        }
        t.is(seen[written * 65536 + 1000], 0, 'the write that was refused')
        t.is(seen[(written + 1) * 65536 + 1000], 99)
      },
    )
  }

  testMounted(`on a full ${kind} a guest can be held until there is room`, async (t) => {
    const events: ImageEvent[] = []
    let stopped: (() => void) | undefined
    const wasStopped = new Promise<void>((resolve) => (stopped = resolve))
    const { image, path, makeRoom } = await makeImage(t, kind, {
      onError: 'enospc',
      onEvent: (event) => {
        events.push(event)
        stopped?.()
      },
    })
    const clusters = 120
    const writing = (async () => {
      for (let cluster = 0; cluster < clusters; cluster++) {
        await image.write(new Uint8Array(65536).fill(cluster + 1), cluster * 65536)
      }
    })()
    await Promise.race([wasStopped, writing])
    t.like(events[0], { type: 'no-space', stopped: true })
    await makeRoom()
    image.resume()
    await writing
    await image.flush()
    await image.close()
    t.is(await qemuCheck(path), '')
    const seen = await qemuRead(path, 'qcow2', join(dirname(path), '..', 'copy'))
    for (let cluster = 0; cluster < clusters; cluster++) t.is(seen[cluster * 65536], cluster + 1)
  })

  for (const cache of ['writeback', 'none', 'writethrough'] as const) {
    testMounted(`writers who meet a full ${kind} again and again lose nothing, cache=${cache}`, async (t) => {
      const { folder } = await mountSmall(t, kind, 12)
      const path = join(folder, 'disk')
      await createImage(path, { size })
      const ballast = [0, 1, 2].map((number) => join(folder, `ballast-${number}`))
      for (const name of ballast) await writeFile(name, new Uint8Array(3 * 1024 * 1024).fill(1))
      let isStopped = false
      let stops = 0
      const image: DiskImage = await openImage(path, {
        cache,
        onError: 'enospc',
        onEvent: ({ type, stopped }) => {
          t.deepEqual([type, stopped, isStopped], ['no-space', true, false])
          isStopped = true
          stops++
          void (async () => {
            // At first nothing has changed: the guest is stopped once more.
            const next = stops > 1 ? ballast.shift() : undefined
            if (next !== undefined) await rm(next)
            isStopped = false
            image.resume()
          })()
        },
      })
      t.teardown(() => image.close().catch(() => undefined))
      const expected = new Uint8Array(size)
      await Promise.all([0, 1, 2, 3, 4, 5].map((writer) => writeRegion(image, expected, writer)))
      await image.flush()
      await image.close()
      t.true(stops >= 2, `${stops} stops`)
      t.is(await qemuCheck(path), '')
      const seen = await qemuRead(path, 'qcow2', join(dirname(path), '..', 'copy'))
      t.is(Buffer.compare(seen, expected), 0)
    })
  }

  testMounted(`what does not fit on a ${kind} leaves nothing behind`, async (t) => {
    const { folder } = await mountSmall(t, kind, 12)
    const before = await readdir(folder)
    for (const format of ['qcow2', 'raw'] as const) {
      for (const preallocation of ['falloc', 'full'] as const) {
        const created = createImage(join(folder, 'disk'), { size, format, preallocation })
        await t.throwsAsync(created, { code: 'ERR_NO_SPACE' }, `${format} ${preallocation}`)
      }
    }
    const source = join(folder, '..', 'source.raw')
    await writeFile(source, new Uint8Array(16 * 1024 * 1024).fill(1))
    for (const format of ['qcow2', 'raw'] as const) {
      const converted = convertImage(source, join(folder, 'disk'), { format })
      await t.throwsAsync(converted, { code: 'ERR_NO_SPACE' }, format)
    }
    t.deepEqual(await readdir(folder), before)
  })

  testMounted(`a disk that grows by more than a ${kind} has room for stays as it was`, async (t) => {
    const { folder } = await mountSmall(t, kind, 12)
    for (const format of ['qcow2', 'raw'] as const) {
      for (const preallocation of ['falloc', 'full'] as const) {
        const path = join(folder, 'disk')
        await createImage(path, { size: 1024 * 1024, format })
        const { size: length } = await stat(path)
        const grown = resizeImage(path, size, { format, preallocation })
        await t.throwsAsync(grown, { code: 'ERR_NO_SPACE' }, `${format} ${preallocation}`)
        t.is((await imageInfo(path, { format })).virtualSize, 1024 * 1024, `${format} ${preallocation}`)
        t.true((await stat(path)).size <= length + 2 * 65536, `${format} ${preallocation}`)
        if (format === 'qcow2') t.is(await qemuCheck(path), '')
        await rm(path)
      }
    }
  })
}
