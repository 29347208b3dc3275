import { readFile, rm } from 'node:fs/promises'
import { openImage } from '../../lib/index.js'
import { bitmapsIn } from '../crash/bitmap-walk.js'
import type { ModelBitmap } from './bitmap-model.js'
import { type FrozenDisk, type MixedImage, opened, stockName } from './mixed-chain.js'
import { qemuCheckOf, qemuImg, qemuReadOf } from './qemu.js'
import type { SeededRandom } from './seeded-random.js'

/**
 * See that an image is sound, and that both tools read the disk, the snapshots and the bitmaps that it must have.
 * @param chain  closed, from the image on downwards
 * @throws Error  what differs
 */
export async function judge(chain: readonly MixedImage[], random: SeededRandom): Promise<void> {
  const [image] = chain
  if (image === undefined) return
  const told = stockName(chain)
  mustEqual(await qemuReadOf(told, `${image.path}.copy`), image.content, `the stock tool, of ${image.name}`)
  if (image.format === 'raw') return
  const problem = await qemuCheckOf(told)
  if (problem !== '') throw new Error(`${image.name}: ${problem}`)
  await judgeByUs(image)
  if (image.snapshots.length > 0) await judgeSnapshots(chain, image.snapshots, random)
  if (image.bitmaps.all.size > 0) await judgeBitmapsByStock(chain, image)
  if (!image.dataFileRaw || image.dataFile === undefined) return
  // The stock tool writes whole clusters, behind the end of the disk too.
  const data = await readFile(image.dataFile)
  mustEqual(data.subarray(0, image.content.length), image.content, 'the raw data file')
}

async function judgeByUs({ path, name, content, bitmaps }: MixedImage): Promise<void> {
  const disk = await openImage(path, { ...opened, readOnly: true })
  try {
    const seen = Buffer.from(await disk.read({ offset: 0, length: disk.size }))
    mustEqual(seen, content, `our reading of ${name}`)
    const list = await disk.bitmaps.list()
    mustSay('the bitmaps', list.map((one) => one.name).sort(), [...bitmaps.all.keys()].sort())
    for (const { name: bitmap, granularity, enabled, inconsistent } of list) {
      const model = bitmaps.all.get(bitmap)
      mustSay(bitmap, [granularity, enabled, inconsistent], [model?.granularity, model?.enabled, false])
      const units: number[] = []
      for await (const { offset, length } of disk.bitmaps.ranges(bitmap))
        for (let at = offset; at < offset + length; at += granularity) units.push(at / granularity)
      mustSay(`our reading of bitmap ${bitmap}`, units, sorted(model))
    }
  } finally {
    await disk.close()
  }
}

async function judgeSnapshots(
  chain: readonly MixedImage[],
  snapshots: readonly FrozenDisk[],
  random: SeededRandom,
): Promise<void> {
  const [{ path, content }] = chain as [MixedImage]
  const listed = await qemuImg('snapshot', '-l', ...stockName(chain))
  for (const snapshot of snapshots) {
    const { id, name } = snapshot
    if (!listed.includes(`\n${id.padEnd(9)} ${name}`))
      throw new Error(`snapshot ${id} ${name} is not listed:\n${listed}`)
    const view = await openImage(path, { ...opened, readOnly: true, snapshot: { id } })
    const seen = Buffer.from(await view.read({ offset: 0, length: view.size }))
    await view.close()
    const isNew = snapshot.content === undefined
    mustEqual(seen, (snapshot.content ??= seen), `our reading of snapshot ${id}`)
    if (seen.length !== snapshot.size) throw new Error(`snapshot ${id} has ${seen.length} bytes`)
    if (!isNew && !random.chance(0.2)) continue
    const told = ['-l', `snapshot.id=${id}`, ...stockName(chain)]
    const theirs = await qemuReadOf(told, `${path}.copy`)
    // It shows as many bytes as the disk has now.
    const most = Math.min(seen.length, content.length)
    mustEqual(theirs.subarray(0, most), seen.subarray(0, most), `the stock tool's reading of snapshot ${id}`)
  }
}

/** It copies the bitmaps into another image, where they are read without its help or ours. */
async function judgeBitmapsByStock(chain: readonly MixedImage[], image: MixedImage): Promise<void> {
  const copy = `${image.path}.bitmaps`
  await qemuImg('convert', '--bitmaps', ...stockName(chain), '-O', 'qcow2', copy)
  const bytes = new Uint8Array(await readFile(copy))
  await rm(copy)
  const { bitmaps } = bitmapsIn(new DataView(bytes.buffer), bytes.length)
  const size = image.content.length
  mustSay(
    'the stock tool’s bitmaps',
    bitmaps.map(({ name }) => name).sort(),
    [...image.bitmaps.all.keys()].sort(),
  )
  for (const { name, auto, unit, isMarked } of bitmaps) {
    const model = image.bitmaps.all.get(name)
    mustSay(name, [unit, auto], [model?.granularity, model?.enabled])
    const units: number[] = []
    for (let at = 0; at < size; at += unit) if (isMarked(at)) units.push(at / unit)
    mustSay(`the stock tool’s reading of bitmap ${name}`, units, sorted(model))
  }
}

/**
 * The disk shows other bytes, or the same from elsewhere: whoever wrote them need not have written all of it. Each bitmap that follows the disk must
 * know of what has changed and keep what it knew; what else it says is taken from it.
 */
export async function adoptBitmaps(image: MixedImage, before: Buffer): Promise<void> {
  if (image.bitmaps.all.size === 0) return
  const disk = await openImage(image.path, { ...opened, readOnly: true })
  try {
    for (const [name, { enabled, granularity, units }] of image.bitmaps.all) {
      if (!enabled) continue
      const found = new Set<number>()
      for await (const { offset, length } of disk.bitmaps.ranges(name))
        for (let at = offset; at < offset + length; at += granularity) found.add(at / granularity)
      for (const unit of units)
        if (!found.has(unit)) throw new Error(`bitmap ${name} of ${image.name} has lost unit ${unit}`)
      for (let at = 0; at < image.content.length; at += granularity) {
        const [now, then] = [image.content, before].map((bytes) => bytes.subarray(at, at + granularity))
        if (now !== undefined && then !== undefined && !now.equals(then) && !found.has(at / granularity))
          throw new Error(`bitmap ${name} of ${image.name} misses a change at ${at}`)
      }
      for (const unit of found) units.add(unit)
    }
  } finally {
    await disk.close()
  }
}

const sorted = (bitmap: ModelBitmap | undefined): number[] => [...(bitmap?.units ?? [])].sort((a, b) => a - b)

function mustSay(what: string, found: unknown, wanted: unknown): void {
  const [is, must] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (is !== must) throw new Error(`${what}: ${is} where ${must} is right`)
}

/** @throws Error  the first byte that differs */
export function mustEqual(seen: Buffer, expected: Buffer, reader: string, from = 0): void {
  if (seen.equals(expected)) return
  if (seen.length !== expected.length)
    throw new Error(`${reader}: ${seen.length} bytes where ${expected.length} are right`)
  const at = seen.findIndex((byte, index) => byte !== expected[index])
  throw new Error(`${reader}: byte ${from + at} is ${seen[at]} where ${expected[at]} is right`)
}
