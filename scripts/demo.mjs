// The main job on real input:  npm run demo [-- DISK_IMAGE]
//
// Takes a disk image, or makes one of this machine's own files, converts it to qcow2, and writes to it as a guest would, in
// two cache modes: it prints how many syncs the ordering asked for, how many the block queue issued, and ends with a check.
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { copyFileSync, constants, mkdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkImage, convertImage, imageInfo, openImage } from 'qcow2'
import { barLine } from '../dist/lib/cli/progress-meter.js'
import { makeDiskOfOwnFiles } from './own-files.mjs'

const writeCount = 2000
const writeBytes = 4096
const inFlight = 32
/** A guest's journal flushes now and then. */
const writesPerFlush = 50
/** A slow disk ends each of the two runs early; what was done by then is what is reported. */
const longestRunMs = 20_000

const folder = fileURLToPath(new URL('../out/demo/', import.meta.url))
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`
const count = (number) => number.toLocaleString('en')

/** A bar on a terminal; elsewhere one line when it is done. */
function meter(phase, total) {
  const started = performance.now()
  const terminal = process.stderr.isTTY === true
  let shown = 0
  return {
    show(done) {
      const now = performance.now()
      if (!terminal || now - shown < 50) return
      shown = now
      const progress = { phase, bytesDone: done, bytesTotal: total }
      process.stderr.write(`\r${barLine(progress, (now - started) / 1000)}\x1b[K`)
    },
    /** @returns seconds */
    finish() {
      if (terminal) process.stderr.write('\r\x1b[K')
      return (performance.now() - started) / 1000
    },
  }
}

async function convert(source, target) {
  const { format, virtualSize, actualSize } = await imageInfo(source)
  console.log(
    `Source: ${source}: ${format}, ${mebibytes(virtualSize)}, of which ${mebibytes(actualSize)} are on the disk`,
  )
  const bar = meter('convert', virtualSize)
  await convertImage(source, target, {
    format: 'qcow2',
    backing: 'allow',
    overwrite: true,
    onProgress: ({ bytesDone }) => bar.show(bytesDone),
  })
  const seconds = bar.finish()
  const made = statSync(target).size
  console.log(
    `Converted to qcow2: ${mebibytes(made)} in ${seconds.toFixed(1)} s, ${mebibytes(actualSize / seconds)} a second`,
  )
}

/**
 * Write 4 KiB pieces, half of them one behind the other and half anywhere, 32 at a time.
 * @returns what was written, by offset, and the queue's counters
 */
async function writeAsGuest(path, cache) {
  const image = await openImage(path, { format: 'qcow2', cache, backing: 'allow' })
  const blocks = Math.floor(image.size / writeBytes)
  const written = new Map()
  const bar = meter(`write, cache=${cache}`, writeCount)
  const started = performance.now()
  const base = Math.floor(blocks / 3)
  let next = 0
  let done = 0
  const writer = async () => {
    while (next < writeCount && performance.now() - started < longestRunMs) {
      const index = next++
      const block = index % 2 === 0 ? (base + index / 2) % blocks : Math.floor(Math.random() * blocks)
      const offset = block * writeBytes
      // Two writes to one place at the same time may land in any order: then nothing can be said about it.
      if (written.has(offset)) continue
      const bytes = randomBytes(writeBytes)
      written.set(offset, bytes)
      await image.write(bytes, offset)
      bar.show(++done)
      if (done % writesPerFlush === 0) await image.flush()
    }
  }
  try {
    await Promise.all(Array.from({ length: inFlight }, writer))
    await image.flush()
    const seconds = bar.finish()
    return { written, done, seconds, stats: image.stats() }
  } finally {
    await image.close()
  }
}

/** Read back what was written, through a fresh look at the image. */
async function verify(path, written) {
  const image = await openImage(path, { format: 'qcow2', readOnly: true, backing: 'allow' })
  try {
    for (const [offset, bytes] of written) {
      const found = await image.read({ offset, length: bytes.length })
      if (!bytes.equals(found)) throw new Error(`wrong bytes at ${offset}`)
    }
  } finally {
    await image.close()
  }
}

async function checkBoth(path) {
  const result = await checkImage(path)
  if (result.corruptions > 0 || result.leaks > 0 || result.checkErrors > 0) {
    throw new Error(`the check found ${result.corruptions} corruptions and ${result.leaks} leaks`)
  }
  const stock = spawnSync('qemu-img', ['check', '-q', '-f', 'qcow2', path], { encoding: 'utf8' })
  if (stock.error !== undefined) return 'clean (qemu-img is not installed: it was not asked)'
  if (stock.status !== 0) throw new Error(`qemu-img check disagrees: ${stock.stdout}${stock.stderr}`)
  return 'clean, and qemu-img agrees'
}

mkdirSync(folder, { recursive: true })
try {
  const given = process.argv[2]
  const source = given ?? makeDiskOfOwnFiles(join(folder, 'own-files.ext4'))
  const pristine = join(folder, 'converted.qcow2')
  await convert(source, pristine)
  console.log(
    `Then ${count(writeCount)} writes of ${writeBytes} bytes, ${inFlight} in flight, half of them sequential, a flush after every ${writesPerFlush}:`,
  )
  for (const cache of ['none', 'writethrough']) {
    const image = join(folder, `${cache}.qcow2`)
    copyFileSync(pristine, image, constants.COPYFILE_FICLONE)
    const { written, done, seconds, stats } = await writeAsGuest(image, cache)
    await verify(image, written)
    const verdict = await checkBoth(image)
    // With the queue off, each metadata write asks for a sync of its own, and no barrier for another.
    const orders = cache === 'writethrough' ? stats.nodesQueued : stats.barriersAsked
    const asked = orders + stats.flushesAsked
    console.log(
      `  cache=${cache.padEnd(12)} ${count(done).padStart(5)} writes, ${count(Math.round(done / seconds)).padStart(6)} a second; ` +
        `syncs asked for ${count(asked).padStart(6)}, issued ${count(stats.syncsIssued).padStart(6)}; read back; check: ${verdict}`,
    )
  }
  console.log(
    'In cache=none orders wait in the queue and share syncs; in cache=writethrough every write is made durable by itself.',
  )
} catch (error) {
  console.error(`demo: ${error.message}`)
  process.exitCode = 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
