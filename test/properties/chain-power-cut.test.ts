import test from 'ava'
import { DiskImage } from '../../lib/image/disk-image.js'
import { type Layer, LayersBelow } from '../../lib/image/layers.js'
import { commitInto } from '../../lib/operations/commit.js'
import { moveOnto } from '../../lib/operations/rebase.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { openQcow2 } from '../../lib/qcow2/image.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import { MemoryBackend, type MemoryBackendOptions } from '../../lib/queue/memory-backend.js'
import type { DeviceEvent } from '../../lib/queue/memory-device.js'
import type { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { afterPowerCut } from '../support/power-cut.js'
import { checkContents, fill } from '../support/qcow2-disk.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'

/*
 * An image is committed into its backing file, or put on another one; the power goes at any moment, for both files at once. Whatever the
 * disks have made of what no sync covered: both images are sound, and the overlay shows what it showed.
 */

const runs = countOfRun('QCOW2_CHAIN_CUTS', 10)
const seed = seedOfRun()
const cutsPerRun = 12
const sector = 512

type ImageSetting = { readonly version: 2 | 3; readonly clusterSize: number; readonly sectors: number }

function randomSetting(random: SeededRandom): ImageSetting {
  return {
    version: random.chance(0.25) ? 2 : 3,
    clusterSize: random.pick([512, 512, 4096]),
    sectors: random.between(8, 400),
  }
}

async function layerOf(
  contents: SparseBytes,
  below: readonly Layer[],
  options: MemoryBackendOptions = {},
): Promise<Layer & { backend: MemoryBackend }> {
  const backend = new MemoryBackend({ contents, ...options })
  const [first, ...others] = below
  const backing = first && new LayersBelow([first, ...others])
  const readOnly = options.readOnly === true
  return { format: await openQcow2(backend, { readOnly, backing, reservation: 0 }), backend }
}

function diskOf(layer: Layer, below: readonly Layer[] = []): DiskImage {
  return new DiskImage({
    path: 'memory',
    readOnly: false,
    layers: [layer, ...below],
    owned: [layer],
    rawWasGuessed: false,
    failurePolicy: undefined,
  })
}

/** An image with values of its own in some sectors, each filled with one value. */
async function makeImage(
  setting: ImageSetting,
  below: readonly Layer[],
  random: SeededRandom,
  backingFile?: string,
): Promise<SparseBytes> {
  const memory = new MemoryBackend()
  await createQcow2(memory, {
    size: setting.sectors * sector,
    clusterSize: setting.clusterSize,
    version: setting.version,
    refcountBits: 16,
    lazyRefcounts: setting.version === 3 && random.chance(0.3),
    backingFile,
    backingFormat: backingFile === undefined ? undefined : 'qcow2',
  })
  const { format } = await layerOf(memory.contents, below)
  for (let index = random.between(2, 10); index > 0; index--) {
    const first = random.integer(setting.sectors)
    const count = Math.min(random.between(1, 40), setting.sectors - first)
    if (random.chance(0.2)) await format.writeZeroes(first * sector, count * sector, { unmap: true })
    else await format.write(fill(count * sector, random.between(1, 250)), first * sector)
  }
  await format.close()
  return memory.contents
}

async function valuesOf(contents: SparseBytes, below: readonly Layer[]): Promise<Uint8Array> {
  const layer = await layerOf(contents, below, { readOnly: true })
  const bytes = new Uint8Array(layer.format.size)
  await layer.format.read(bytes, 0)
  const values = new Uint8Array(bytes.length / sector)
  for (let at = 0; at < values.length; at++) {
    const [value = 0] = bytes.subarray(at * sector)
    if (bytes.subarray(at * sector, (at + 1) * sector).some((byte) => byte !== value)) {
      throw new Error(`sector ${at} is torn`)
    }
    values[at] = value
  }
  return values
}

async function mustBeSound(contents: SparseBytes, what: string): Promise<void> {
  const { corruptions, checkErrors, findings } = await checkContents(contents)
  // Lazy refcounts may be wrong while the header says so: whoever opens it for writing counts anew.
  const { header } = await readHeader(new MemoryBackend({ contents, readOnly: true }))
  if ((header.incompatibleFeatures & 1n) !== 0n) return
  if (corruptions + checkErrors === 0) return
  const worst = findings.find(({ kind }) => kind !== 'leak')
  throw new Error(`${what} is damaged: ${worst?.text}`)
}

function mustShow(values: Uint8Array, wanted: Uint8Array, what: string): void {
  if (values.length !== wanted.length) throw new Error(`${what} has ${values.length} sectors`)
  const at = values.findIndex((value, index) => value !== wanted[index])
  if (at >= 0) throw new Error(`${what}: sector ${at} is ${values[at]}, not ${wanted[at]}`)
}

/** The events of several devices in the one order in which they happened: for each the number of its device. */
function watch(...devices: readonly MemoryBackend[]): number[] {
  const order: number[] = []
  for (const [number, { log }] of devices.entries()) {
    const events = log as DeviceEvent[]
    events.push = (...added) => {
      for (let count = added.length; count > 0; count--) order.push(number)
      return Array.prototype.push.apply(events, added)
    }
  }
  return order
}

const countIn = (order: readonly number[], number: number, cut: number): number =>
  order.slice(0, cut).filter((one) => one === number).length

test('whenever the power goes during a commit, the overlay shows what it showed, and its base is sound', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed} QCOW2_CHAIN_CUTS=${runs}`)
  for (let index = 0; index < runs; index++) {
    const random = new SeededRandom((seed + index) >>> 0)
    const [baseSetting, topSetting] = [randomSetting(random), randomSetting(random)]
    const base = await makeImage(baseSetting, [], random)
    const reader = (contents: SparseBytes): Promise<Layer> => layerOf(contents, [], { readOnly: true })
    const top = await makeImage(topSetting, [await reader(base)], random, 'base')
    const wanted = await valuesOf(top, [await reader(base)])
    const before = { base: base.toBytes(), top: top.toBytes() }

    const recorded = { record: true, seed: random.integer(2 ** 30) }
    const lower = await layerOf(base, [], recorded)
    const upper = await layerOf(top, [await reader(base)], recorded)
    const order = watch(lower.backend, upper.backend)
    const image = diskOf(upper, [await reader(base)])
    await commitInto(image, diskOf(lower), { depth: 1, empties: true, cache: { syncPolicy: 'flush' } })
    await image.close()

    const cuts = [order.length, ...Array.from({ length: cutsPerRun }, () => random.integer(order.length + 1))]
    for (const cut of cuts) {
      const baseThen = afterPowerCut(before.base, lower.backend.log, countIn(order, 0, cut), random)
      const topThen = afterPowerCut(before.top, upper.backend.log, countIn(order, 1, cut), random)
      try {
        await mustBeSound(baseThen, 'the base')
        await mustBeSound(topThen, 'the overlay')
        mustShow(await valuesOf(topThen, [await reader(baseThen)]), wanted, 'the overlay')
        if (cut !== order.length) continue
        mustShow((await valuesOf(baseThen, [])).subarray(0, wanted.length), wanted, 'the base at the end')
        const mapping = await (
          await layerOf(topThen, [], { readOnly: true })
        ).format.mapping(0, wanted.length * sector)
        t.is(mapping.type, 'unallocated')
      } catch (error) {
        const replay = `QCOW2_SEED=${seed + index} QCOW2_CHAIN_CUTS=1`
        throw new Error(`${replay}: after ${cut} of ${order.length} events: ${String(error)}`, {
          cause: error,
        })
      }
    }
  }
  t.pass()
})

test('whenever the power goes during a rebase, the image shows what it showed, on the one chain or on the other', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed} QCOW2_CHAIN_CUTS=${runs}`)
  let switched = 0
  for (let index = 0; index < runs; index++) {
    const random = new SeededRandom((seed + index) >>> 0)
    const settings = [randomSetting(random), randomSetting(random)] as const
    const [oldBase, newBase] = [
      await makeImage(settings[0], [], random),
      await makeImage(settings[1], [], random),
    ]
    const layer = {
      old: await layerOf(oldBase, [], { readOnly: true }),
      new: await layerOf(newBase, [], { readOnly: true }),
    }
    const top = await makeImage(randomSetting(random), [layer.old], random, 'old')
    const wanted = await valuesOf(top, [layer.old])
    const before = top.toBytes()
    const isFlattened = random.chance(0.3)

    const upper = await layerOf(top, [layer.old], { record: true, seed: random.integer(2 ** 30) })
    const image = diskOf(upper, [layer.old])
    const target = isFlattened ? undefined : ({ file: 'new', format: 'qcow2' } as const)
    await moveOnto(image, isFlattened ? undefined : diskOf(layer.new), { target })
    await image.close()

    const { log } = upper.backend
    const cuts = [log.length, ...Array.from({ length: cutsPerRun }, () => random.integer(log.length + 1))]
    for (const cut of cuts) {
      const then = afterPowerCut(before, log, cut, random)
      try {
        await mustBeSound(then, 'the image')
        const { header } = await readHeader(new MemoryBackend({ contents: then, readOnly: true }))
        const name = header.backingFile
        t.true(name === 'old' || name === target?.file)
        if (cut === log.length) t.is(name, target?.file)
        if (name !== 'old') switched++
        const below = name === 'old' ? [layer.old] : name === 'new' ? [layer.new] : []
        mustShow(await valuesOf(then, below), wanted, `on ${name ?? 'nothing'}`)
      } catch (error) {
        const replay = `QCOW2_SEED=${seed + index} QCOW2_CHAIN_CUTS=1`
        throw new Error(`${replay}: after ${cut} of ${log.length} events: ${String(error)}`, { cause: error })
      }
    }
  }
  t.true(switched >= runs, `${switched} states behind the switch`)
})

/** A guest's changes, by sector, step by step; times are counts of events of both devices. */
type GuestLog = {
  readonly states: Uint8Array[]
  readonly begun: number[]
  readonly flushed: { readonly time: number; readonly step: number }[]
}

function mustBeAllowed(values: Uint8Array, guest: GuestLog, cut: number, what: string): void {
  const floor = Math.max(...guest.flushed.filter(({ time }) => time <= cut).map(({ step }) => step))
  const last = guest.begun.findLastIndex((time) => time <= cut)
  const allowed = guest.states.slice(floor, last + 1)
  const at = values.findIndex((value, sectorAt) => !allowed.some((state) => state[sectorAt] === value))
  if (at >= 0)
    throw new Error(`${what}: sector ${at} is ${values[at]}, which was not there since the last flush`)
}

test('whenever the power goes around the freezing of an open disk, what was flushed is there, in the new image and before in the old one', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed} QCOW2_CHAIN_CUTS=${runs}`)
  for (let index = 0; index < runs; index++) {
    const random = new SeededRandom((seed + index) >>> 0)
    const setting = randomSetting(random)
    const old = await makeImage(setting, [], random)
    const upperSetting = { ...setting, clusterSize: random.pick([512, 4096]) }
    const fresh = new MemoryBackend()
    await createQcow2(fresh, {
      size: setting.sectors * sector,
      clusterSize: upperSetting.clusterSize,
      version: 3,
      refcountBits: 16,
      lazyRefcounts: random.chance(0.2),
    })
    const first = await valuesOf(old, [])
    const before = { old: old.toBytes(), new: fresh.contents.toBytes() }
    const recorded = { record: true, seed: random.integer(2 ** 30) }
    const lower = await layerOf(old, [], recorded)
    const upper = await layerOf(fresh.contents, [lower], recorded)
    const order = watch(lower.backend, upper.backend)
    const image = diskOf(lower)

    const guest: GuestLog = { states: [first], begun: [0], flushed: [{ time: 0, step: 0 }] }
    let frozenAt = Number.POSITIVE_INFINITY
    const running: Promise<void>[] = []
    const steps = random.between(6, 14)
    const freezing = random.integer(4)
    for (let step = 0; step < steps; step++) {
      const state = (guest.states.at(-1) as Uint8Array).slice()
      guest.begun.push(order.length)
      const changes: Promise<void>[] = []
      for (let at = random.integer(20); at < setting.sectors; at += random.between(20, 150)) {
        const count = Math.min(random.between(1, 18), setting.sectors - at)
        const value = random.between(1, 250)
        state.fill(value, at, at + count)
        changes.push(image.write(fill(count * sector, value), at * sector))
      }
      guest.states.push(state)
      // In the middle of what is under way: of the first changes, which may have to wait for a header, or of later ones.
      if (step === freezing) {
        const frozen = DiskImage.putOnTop(image, upper, 'memory', false)
        running.push(frozen.then(() => void (frozenAt = order.length)))
      }
      await Promise.all(changes)
      if (!random.chance(0.5)) continue
      const covered = guest.states.length - 1
      running.push(image.flush().then(() => void guest.flushed.push({ time: order.length, step: covered })))
      if (random.chance(0.5)) await Promise.all(running)
    }
    await Promise.all(running)
    const cuts = [order.length, ...Array.from({ length: cutsPerRun }, () => random.integer(order.length + 1))]
    await image.close()
    for (const cut of cuts) {
      const oldThen = afterPowerCut(before.old, lower.backend.log, countIn(order, 0, cut), random)
      const newThen = afterPowerCut(before.new, upper.backend.log, countIn(order, 1, cut), random)
      try {
        await mustBeSound(oldThen, 'the old image')
        await mustBeSound(newThen, 'the new image')
        const below = await layerOf(oldThen, [], { readOnly: true })
        mustBeAllowed(await valuesOf(newThen, [below]), guest, cut, 'the new image')
        if (cut < frozenAt) mustBeAllowed(await valuesOf(oldThen, []), guest, cut, 'the old image')
      } catch (error) {
        const replay = `QCOW2_SEED=${seed + index} QCOW2_CHAIN_CUTS=1`
        const when = `after ${cut} of ${order.length} events, frozen at ${frozenAt}`
        throw new Error(`${replay}: ${when}: ${String(error)}`, { cause: error })
      }
    }
  }
  t.pass()
})
