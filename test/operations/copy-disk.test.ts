import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { createImage, type CreateOptions, type DiskImage, openImage } from '../../lib/index.js'
import { Concatenation } from '../../lib/operations/concatenation.js'
import { copyDisk, type CopyOptions } from '../../lib/operations/copy-disk.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 8 * 1024 * 1024

async function disk(t: ExecutionContext, options: Partial<CreateOptions> = {}): Promise<DiskImage> {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size, ...options })
  const image = await openImage(path, { format: options.format ?? 'qcow2', cache: 'unsafe' })
  t.teardown(() => image.close())
  return image
}

const options: CopyOptions = {
  readsAsZeros: true,
  hasBacking: false,
  compress: false,
  sparseSize: 4096,
  requests: 4,
  limit: undefined,
  signal: undefined,
  onCopied: () => undefined,
}

async function allocatedBytes(image: DiskImage): Promise<number> {
  let bytes = 0
  for await (const { data, length } of image.extents()) if (data) bytes += length
  return bytes
}

const everything = async (image: DiskImage): Promise<Buffer> =>
  Buffer.from(await image.read({ offset: 0, length: image.size }))

test('holes and zeros are not written, data is', async (t) => {
  const source = await disk(t)
  await source.write(new Uint8Array(3 * 1024 * 1024), 0)
  await source.write(new Uint8Array(100).fill(1), 1_000_000)
  await source.write(new Uint8Array(70_000).fill(2), size - 70_000)
  const target = await disk(t)
  let copied = 0
  const written = await copyDisk(new Concatenation([source]), target, {
    ...options,
    onCopied: (bytes) => (copied += bytes),
  })
  t.is(copied, size)
  t.is(written, 3 * 65536)
  t.is(await allocatedBytes(target), 3 * 65536)
  t.true((await everything(target)).equals(await everything(source)))
})

test('without a shortest run of zeros everything is written', async (t) => {
  const source = await disk(t)
  await source.write(Uint8Array.of(1), 5_000_000)
  const target = await disk(t)
  t.is(await copyDisk(new Concatenation([source]), target, { ...options, sparseSize: 0 }), size)
  t.is(await allocatedBytes(target), size)
})

test('a longer shortest run keeps short ones as data', async (t) => {
  const source = await disk(t)
  await source.write(Uint8Array.of(1), 0)
  await source.write(new Uint8Array(200_000), 65536)
  await source.write(Uint8Array.of(1), 1_000_000)
  const target = await disk(t, { format: 'raw' })
  await copyDisk(new Concatenation([source]), target, { ...options, sparseSize: 1024 * 1024 })
  t.true((await everything(target)).equals(await everything(source)))
})

test('a target that holds something gets its zeros written', async (t) => {
  const source = await disk(t)
  await source.write(new Uint8Array(65536).fill(1), 65536)
  for (const format of ['qcow2', 'raw'] as const) {
    const target = await disk(t, { format })
    await target.write(new Uint8Array(size).fill(9), 0)
    await copyDisk(new Concatenation([source]), target, { ...options, readsAsZeros: false })
    t.true((await everything(target)).equals(await everything(source)))
  }
})

test('an aborted copy stops and leaves nothing running', async (t) => {
  const source = await disk(t)
  await source.write(new Uint8Array(size).fill(1), 0)
  const target = await disk(t)
  const controller = new AbortController()
  const copied = copyDisk(new Concatenation([source]), target, {
    ...options,
    signal: controller.signal,
    onCopied: () => controller.abort(new Error('enough')),
  })
  await t.throwsAsync(copied, { message: 'enough' })
  await target.close()
})
