import { copyFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { amendImage, checkImage, createImage, imageInfo, openImage, Qcow2Error } from '../../lib/index.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

type Case = { readonly clusterSize: number; readonly backing: boolean }

/** An image with zero entries of every kind, some of which a snapshot shares; and what the stock tool reads of disk and snapshots. */
async function makeZeros(t: ExecutionContext, { clusterSize, backing }: Case): Promise<string> {
  const path = join(await makeFolder(t, { fast: true }), 'disk.qcow2')
  const size = String(64 * clusterSize)
  if (backing) {
    await qemuImg('create', '-q', '-f', 'qcow2', `${path}.base`, size)
    await qemuIo(`${path}.base`, [`write -P 200 0 ${64 * clusterSize}`])
  }
  const base = backing ? ['-b', `${path}.base`, '-F', 'qcow2'] : []
  await qemuImg('create', '-q', '-f', 'qcow2', ...base, '-o', `cluster_size=${clusterSize}`, path, size)
  const at = (cluster: number): number => cluster * clusterSize
  await qemuIo(path, [
    `write -P 1 0 ${8 * clusterSize}`,
    // Kept, and given up.
    `write -z ${at(1)} ${clusterSize}`,
    `write -z -u ${at(2)} ${clusterSize}`,
    `write -z -u ${at(20)} ${3 * clusterSize}`,
  ])
  await qemuImg('snapshot', '-c', 'first', path)
  await qemuIo(path, [
    // What the snapshot has as data, or as zeros that are kept.
    `write -z ${at(3)} ${clusterSize}`,
    `write -P 2 ${at(1)} ${clusterSize / 2}`,
    `write -z ${at(63)} ${clusterSize}`,
  ])
  await qemuImg('snapshot', '-c', 'second', path)
  await qemuIo(path, [`write -P 3 ${at(5)} ${clusterSize}`])
  return path
}

async function readAll(path: string): Promise<Buffer[]> {
  const contents = [await qemuRead(path)]
  for (const name of ['first', 'second']) {
    await qemuImg('convert', '-l', name, '-O', 'raw', path, `${path}.${name}`)
    contents.push(await readFile(`${path}.${name}`))
  }
  return contents
}

for (const clusterSize of [512, 4096, 65536, 2 * 1024 * 1024]) {
  // Where clusters are large the chain costs more than it tells.
  for (const backing of clusterSize > 65536 ? [false] : [false, true]) {
    const what = `${clusterSize}-byte clusters ${backing ? 'over' : 'without'} a backing file`
    test(`version 2 and back: disk and snapshots read the same, ${what}`, async (t) => {
      const path = await makeZeros(t, { clusterSize, backing })
      const before = await readAll(path)
      await amendImage(path, { compat: '0.10' })
      t.is((await imageInfo(path)).qcow2?.compat, '0.10')
      t.is(await qemuCheck(path), '')
      t.like(await checkImage(path), { corruptions: 0, leaks: 0 })
      const after = await readAll(path)
      t.true(before.every((bytes, index) => bytes.equals(after[index] ?? Buffer.alloc(0))))

      await amendImage(path, { compat: '1.1', refcountBits: 64, lazyRefcounts: true })
      t.like(await imageInfo(path), { qcow2: { compat: '1.1', refcountBits: 64, lazyRefcounts: true } })
      t.is(await qemuCheck(path), '')
      const again = await readAll(path)
      t.true(before.every((bytes, index) => bytes.equals(again[index] ?? Buffer.alloc(0))))
    })
  }
}

test('refcounts of every width, up and down, with snapshots; the guest sees no difference', async (t) => {
  const path = await makeZeros(t, { clusterSize: 512, backing: false })
  const before = await readAll(path)
  for (const refcountBits of [32, 2, 64, 4, 8, 16]) {
    await amendImage(path, { refcountBits })
    t.is((await imageInfo(path)).qcow2?.refcountBits, refcountBits)
    t.is(await qemuCheck(path), '', `${refcountBits} bits`)
    t.like(await checkImage(path), { corruptions: 0, leaks: 0 })
  }
  const error = await t.throwsAsync(amendImage(path, { refcountBits: 1 }), { instanceOf: Qcow2Error })
  t.regex(
    error?.message ?? '',
    /^Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x[0-9a-f]+ has a refcount of \d$/,
  )
  const after = await readAll(path)
  t.true(before.every((bytes, index) => bytes.equals(after[index] ?? Buffer.alloc(0))))
  // The new counts are the ones that a writer goes by.
  const image = await openImage(path)
  await image.write(new Uint8Array(4096).fill(9), 0)
  await image.snapshots.delete('first')
  await image.close()
  t.is(await qemuCheck(path), '')
})

test('what is refused, or aborted, leaves every byte as it was', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'disk.qcow2')
  await createImage(path, { size: 1024 * 1024, refcountBits: 8 })
  const before = await readFile(path)
  const refused = [
    [{ compat: '0.10' }, 'compat=0.10 requires refcount_bits=16'],
    [{ backingFile: 'x', backingFormat: 'raw' }, 'Cannot amend the backing file'],
    [{ dataFile: 'x' }, 'data-file can only be set for images that use an external data file'],
    [{ dataFileRaw: true }, 'data-file-raw cannot be set on existing images'],
  ] as const
  for (const [options, message] of refused)
    await t.throwsAsync(amendImage(path, options), { code: 'ERR_NOT_SUPPORTED', message })
  await t.throwsAsync(amendImage(path, { size: 1000 }), { instanceOf: RangeError })
  const abort = { name: 'Aborted' } as const
  const controller = new AbortController()
  const onProgress = (): void => controller.abort(Object.assign(new Error('enough'), abort))
  await t.throwsAsync(amendImage(path, { refcountBits: 64, signal: controller.signal, onProgress }), abort)
  t.true(before.equals(await readFile(path)))
  await copyFile(path, join(folder, 'copy.raw'))
  await t.throwsAsync(amendImage(join(folder, 'copy.raw'), { format: 'raw', size: 512 }), {
    message: "Format driver 'raw' does not support option amendment",
  })
})

test('the disk grows and shrinks on the way', async (t) => {
  const path = join(await makeFolder(t, { fast: true }), 'disk.qcow2')
  await createImage(path, { size: 1024 * 1024, compat: '0.10' })
  await amendImage(path, { compat: '1.1', size: 8 * 1024 * 1024, refcountBits: 4 })
  t.like(await imageInfo(path), { virtualSize: 8 * 1024 * 1024, qcow2: { refcountBits: 4, compat: '1.1' } })
  await amendImage(path, { compat: '0.10', size: 512, refcountBits: 16 })
  t.like(await imageInfo(path), { virtualSize: 512, qcow2: { compat: '0.10' } })
  t.is(await qemuCheck(path), '')
})

test('snapshots of another size, and bitmaps, keep an image from version 2', async (t) => {
  const path = await makeZeros(t, { clusterSize: 65536, backing: false })
  await qemuImg('resize', path, '8M')
  await t.throwsAsync(amendImage(path, { compat: '0.10' }), {
    message: 'Internal snapshots prevent downgrade of image',
  })
  const other = join(await makeFolder(t, { fast: true }), 'bitmaps.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', other, '1M')
  await qemuImg('bitmap', '--add', other, 'b')
  await t.throwsAsync(amendImage(other, { compat: '0.10' }), { code: 'ERR_NOT_SUPPORTED' })
})
