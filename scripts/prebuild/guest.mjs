// What a prebuild has to do in each host of prove.mjs:  node guest.mjs RESULT-FILE
//
// The result goes to a file, as under Wine there is no standard output to write to: a line, or a stack trace.
import { writeFileSync } from 'node:fs'
import { mkdir, rm, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { checkImage, convertImage, createImage, openImage } from 'qcow2'

const MiB = 1024 * 1024
const size = 32 * MiB
const done = []

if (isMainThread) {
  const [, , result] = process.argv
  const folder = resolve(`images-${process.pid}`)
  await mkdir(folder, { recursive: true })
  // Whatever ends the process before its time leaves this.
  let outcome = 'ended early'
  process.on('exit', (code) => {
    writeFileSync(result, code === 0 ? outcome : `exit code ${code} after ${done.join(', ')}`)
  })
  try {
    outcome = await prove(folder)
  } catch (error) {
    outcome = `FAILED after ${done.join(', ')}: ${error.stack}`
  }
  await rm(folder, { recursive: true, force: true }).catch(() => undefined)
} else {
  // Left open, with what it wrote not flushed: whoever ends this thread has to cope.
  const image = await openImage(workerData, { cache: 'none' })
  void image.write(pattern(MiB, 9), 8 * MiB)
  parentPort.postMessage('writing')
  setInterval(() => undefined, 1000)
}

async function prove(folder) {
  const path = join(folder, 'disk.qcow2')
  const binary = addonPath()
  equal(/[\\/]prebuilds[\\/]/.test(binary), true, `not a prebuild: ${binary}`)

  await createImage(path, { size })
  await refused(() => createImage(path, { size }), 'ERR_EXISTS')
  await createImage(path, { size, overwrite: true })
  await refused(() => openImage(join(folder, 'nothing')), 'ERR_NOT_FOUND')
  await refused(() => openImage(folder), 'ERR_IS_A_DIRECTORY')
  done.push('create')

  for (const cache of ['writeback', 'none', 'writethrough', 'directsync', 'unsafe'])
    await writeAndReadBack(path, cache)
  done.push('write, flush, reopen in all cache modes')

  await withImage(path, {}, async (image) => {
    await image.snapshots.create('before')
    await image.write(pattern(MiB, 5), 2 * MiB)
    await image.snapshots.apply('before')
    same(await image.read({ offset: 2 * MiB, length: 512 }), new Uint8Array(512), 'the snapshot')
    await image.snapshots.delete('before')
    await image.discard({ offset: MiB, length: MiB })
    await image.writeZeroes({ offset: 0, length: MiB, unmap: true })
    await image.write(pattern(100_001, 3), 12_345)
    await image.createOverlay(join(folder, 'overlay.qcow2'))
    await image.write(pattern(3 * MiB, 4), 16 * MiB)
  })
  done.push('snapshot, discard, overlay')

  const ring = await hasRing(path)
  const locks = await isLocked(path)
  const overlay = join(folder, 'overlay.qcow2')
  const targets = [
    ['flat.qcow2', { format: 'qcow2', compress: true }],
    ['flat.raw', { format: 'raw' }],
  ]
  const { codecs } = createRequire(import.meta.url)(binary)
  const zstd = codecs.zstd()
  if (zstd) targets.push(['zstd.qcow2', { format: 'qcow2', compress: true, compressionType: 'zstd' }])
  for (const [name, options] of targets) {
    const target = join(folder, name)
    await convertImage(overlay, target, options)
    await withImage(target, { readOnly: true, format: options.format }, async (image) => {
      same(await image.read({ offset: 12_345, length: 100_001 }), pattern(100_001, 3), name)
      same(await image.read({ offset: 16 * MiB, length: 3 * MiB }), pattern(3 * MiB, 4), name)
      equal(image.size, size, name)
    })
  }
  const { blocks } = await stat(join(folder, 'flat.raw'))
  const sparse = blocks * 512 < size / 2
  done.push('convert to compressed qcow2 and raw')

  const long = join(folder, ...['a', 'ü', '磁'].map((letter) => letter.repeat(80)))
  await mkdir(long, { recursive: true })
  await createImage(join(long, 'disk.qcow2'), { size, backingFile: path, backingFormat: 'qcow2' })
  await withImage(join(long, 'disk.qcow2'), { backing: 'allow' }, async (image) => {
    same(await image.read({ offset: 12_345, length: 100_001 }), pattern(100_001, 3), 'the long name')
  })
  done.push('a long name')

  const abandoned = new Worker(new URL(import.meta.url), { workerData: path })
  await new Promise((resolve, reject) => abandoned.once('message', resolve).once('error', reject))
  await abandoned.terminate()
  done.push('a thread ended in the middle of a write')

  for (const name of [path, overlay, join(folder, 'flat.qcow2')]) {
    const { corruptions } = await checkImage(name, { repair: 'leaks' })
    const { leaks } = await checkImage(name)
    equal(`${corruptions} ${leaks}`, '0 0', name)
  }
  done.push('check')

  // Left open: the process ends with it.
  const left = await openImage(path, { cache: 'none' })
  await left.write(pattern(MiB, 7), 20 * MiB)
  done.push('exit with an open image')

  const has = [
    ring ? 'io_uring' : 'no io_uring',
    locks ? 'locks' : 'no locks',
    sparse ? 'holes' : 'no holes',
    codecs.zlib() ? "the host's zlib" : 'no zlib of the host',
    zstd ? 'a zstd' : 'no zstd',
  ]
  return `ok (${has.join(', ')}): ${done.join('; ')}`
}

async function writeAndReadBack(path, cache) {
  const seed = String(cache).length
  await withImage(path, { cache }, async (image) => {
    await image.write(pattern(300_000, seed), 4 * MiB + 77)
    await image.flush()
  })
  await withImage(
    path,
    { readOnly: true, cache: cache === 'directsync' ? 'none' : 'writeback' },
    async (image) => {
      same(await image.read({ offset: 4 * MiB + 77, length: 300_000 }), pattern(300_000, seed), cache)
    },
  )
}

async function withImage(path, options, work) {
  const image = await openImage(path, { backing: 'same-directory', ...options })
  try {
    await work(image)
  } finally {
    await image.close()
  }
}

/** Whether data can go by an io_uring, and does then. */
async function hasRing(path) {
  const cache = { mode: 'none', aio: 'io_uring' }
  const refused = await openImage(path, { cache }).then(
    (image) => image.close(),
    (error) => error,
  )
  if (refused === undefined) await writeAndReadBack(path, cache)
  else equal(refused.code, 'ERR_NOT_SUPPORTED', refused.message)
  return refused === undefined
}

/** Whether a second writer is refused, as it is wherever there are locks. */
async function isLocked(path) {
  const first = await openImage(path)
  const second = await openImage(path).catch((error) => error)
  await first.close()
  if (second.code === 'ERR_IMAGE_LOCKED') return true
  if (second instanceof Error) throw second
  await second.close()
  return false
}

function pattern(length, seed) {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + seed * 7 + (index >> 9)) & 0xff)
}

async function refused(action, code) {
  const error = await action().then(
    () => undefined,
    (thrown) => thrown,
  )
  equal(error?.code, code, String(error?.message))
}

function same(found, wanted, what) {
  if (Buffer.compare(found, wanted) !== 0) throw new Error(`other bytes than were written: ${what}`)
}

function equal(found, wanted, what) {
  if (found !== wanted) throw new Error(`${found} in the place of ${wanted}: ${what}`)
}

function addonPath() {
  const require = createRequire(import.meta.url)
  const folder = join(require.resolve('qcow2'), '..', '..', '..')
  return createRequire(require.resolve('qcow2'))('node-gyp-build').resolve(folder)
}
