import test from 'ava'
import { SectorCipher } from '../../lib/luks/sector-cipher.js'
import type { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { afterPowerCut } from '../support/power-cut.js'
import {
  checkContents,
  type Disk,
  fill,
  imageBytes,
  openDisk,
  readAll,
  readDisk,
  source,
} from '../support/qcow2-disk.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'

/*
 * A guest writes, discards and flushes; the power goes at any moment. Whatever the disk has made of what no sync covered: the
 * image is sound, and every sector is what it was at the last flush or has been made since.
 */

const runs = countOfRun('QCOW2_POWER_CUTS', 40)
const seed = seedOfRun()
/** States of the disk that are looked at for each history. */
const cutsPerRun = 12
const sector = 512

/** The value of each sector after each step; a sector is filled with one value, of which 0 is zeros. */
type History = {
  readonly states: Uint8Array[]
  /** For each step: how many events the log had when it began. */
  readonly begun: number[]
  /** For each flush: how many events the log had when it was over, and the step whose state it covers. */
  readonly flushed: { readonly events: number; readonly step: number }[]
}

type Setting = {
  readonly clusterSize: number
  readonly refcountBits: number
  readonly extendedL2: boolean
  readonly version: 2 | 3
  readonly sectors: number
  readonly backingSectors: number
  readonly syncPolicy: 'flush' | 'write'
  readonly isEncrypted: boolean
  readonly reservation: number
}

function randomSetting(random: SeededRandom): Setting {
  const extendedL2 = random.chance(0.3)
  const version = !extendedL2 && random.chance(0.3) ? 2 : 3
  // Subclusters of one sector, and of two.
  const clusterSize = random.pick(extendedL2 ? [16384, 32768] : [512, 512, 4096])
  return {
    version,
    clusterSize,
    extendedL2,
    refcountBits: version === 2 ? 16 : random.pick([1, 16, 64]),
    sectors: random.between(8, clusterSize === 512 ? 400 : 900),
    backingSectors: random.chance(0.4) ? random.between(1, 500) : 0,
    syncPolicy: random.chance(0.15) ? 'write' : 'flush',
    isEncrypted: random.chance(0.3),
    reservation: random.pick([0, 0, 8]),
  }
}

const backingValue = 250

/** Of encrypted images: what was never written decrypts to noise. */
const cipher = new SectorCipher(
  { cipherAlg: 'aes-128', cipherMode: 'xts', ivgenAlg: 'plain64', ivgenHashAlg: undefined },
  fill(32, 5).map((byte, index) => byte + index),
)

async function open(contents: SparseBytes, setting: Setting, random?: SeededRandom): Promise<Disk> {
  return await openDisk(contents, {
    syncPolicy: setting.syncPolicy,
    reservation: setting.reservation,
    cipher: setting.isEncrypted ? cipher : undefined,
    ...(setting.backingSectors > 0
      ? { backing: source(fill(setting.backingSectors * sector, backingValue)) }
      : {}),
    ...(random === undefined ? {} : { memory: { record: true, seed: random.integer(2 ** 30) } }),
    ...(random?.chance(0.5) ? { l2CacheBytes: 0, refcountCacheBytes: 0 } : {}),
  })
}

/** One change of the disk, in sectors. Those of one step do not overlap. */
async function change(
  disk: Disk,
  setting: Setting,
  state: Uint8Array,
  range: [number, number],
  random: SeededRandom,
): Promise<void> {
  const [first, count] = range
  const kind = random.integer(10)
  const perCluster = setting.clusterSize / sector
  if (kind < 6) {
    const value = random.between(1, 249)
    state.fill(value, first, first + count)
    await disk.image.write(fill(count * sector, value), first * sector)
    return
  }
  if (kind < 8) {
    state.fill(0, first, first + count)
    await disk.image.writeZeroes(first * sector, count * sector, { unmap: random.chance(0.5) })
    return
  }
  const start = Math.ceil(first / perCluster) * perCluster
  const end =
    first + count === state.length ? state.length : Math.floor((first + count) / perCluster) * perCluster
  if (start >= end || (setting.version === 2 && setting.backingSectors > start)) return
  state.fill(0, start, end)
  await disk.image.discard(first * sector, count * sector)
}

async function makeHistory(disk: Disk, setting: Setting, random: SeededRandom): Promise<History> {
  const first = new Uint8Array(setting.sectors)
  first.fill(backingValue, 0, Math.min(setting.backingSectors, setting.sectors))
  const history: History = { states: [first], begun: [0], flushed: [{ events: 0, step: 0 }] }
  const flushes: Promise<void>[] = []
  for (let steps = random.between(3, 25); steps > 0; steps--) {
    const state = (history.states.at(-1) as Uint8Array).slice()
    history.begun.push(disk.memory.log.length)
    const points = Array.from({ length: 2 * random.between(1, 6) }, () => random.integer(setting.sectors + 1))
    points.sort((one, other) => one - other)
    const changes: Promise<void>[] = []
    for (let index = 0; index + 1 < points.length; index += 2) {
      const start = points[index] as number
      const count = Math.min((points[index + 1] as number) - start, 40)
      if (count > 0) changes.push(change(disk, setting, state, [start, count], random))
    }
    await Promise.all(changes)
    history.states.push(state)
    if (setting.syncPolicy === 'write')
      history.flushed.push({ events: disk.memory.log.length, step: history.states.length - 1 })
    if (random.chance(0.4)) flushes.push(flush(disk, history))
    if (random.chance(0.5)) await Promise.all(flushes)
  }
  await Promise.all(flushes)
  return history
}

async function flush(disk: Disk, history: History): Promise<void> {
  const step = history.states.length - 1
  await disk.image.flush()
  history.flushed.push({ events: disk.memory.log.length, step })
}

async function mustBeSound(contents: SparseBytes): Promise<void> {
  const result = await checkContents(contents)
  if (result.corruptions + result.checkErrors > 0) {
    const worse = result.findings.filter(({ kind }) => kind !== 'leak').slice(0, 5)
    throw new Error(`damaged: ${worse.map(({ text }) => text).join('; ')}`)
  }
}

async function lookAt(contents: SparseBytes, setting: Setting, history: History, cut: number): Promise<void> {
  await mustBeSound(contents)
  // The last flush that was over then, and the last step that had begun.
  const floor = Math.max(...history.flushed.filter(({ events }) => events <= cut).map(({ step }) => step))
  const last = history.begun.findLastIndex((events) => events <= cut)
  const disk = await open(contents, setting)
  const seen = await readAll(disk)
  for (let at = 0; at < setting.sectors; at++) {
    const bytes = seen.subarray(at * sector, (at + 1) * sector)
    const value = bytes[0] as number
    const allowed = new Set(history.states.slice(floor, last + 1).map((state) => state[at]))
    if (bytes.some((byte) => byte !== value)) throw new Error(`sector ${at} is torn`)
    if (!allowed.has(value))
      throw new Error(`sector ${at} is ${value}, not one of ${[...allowed].join(', ')}`)
  }
  await disk.image.close()
}

test('whenever the power goes, the image is sound and what was flushed is there', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed} QCOW2_POWER_CUTS=${runs}`)
  for (let index = 0; index < runs; index++) {
    const random = new SeededRandom((seed + index) >>> 0)
    const setting = randomSetting(random)
    const contents = await imageBytes({ ...setting, size: setting.sectors * sector })
    const before = contents.toBytes()
    const disk = await open(contents, setting, random)
    const history = await makeHistory(disk, setting, random)
    if (random.chance(0.5)) await disk.image.close()
    const { log } = disk.memory
    for (let cuts = 0; cuts < cutsPerRun; cuts++) {
      const cut = random.integer(log.length + 1)
      const state = afterPowerCut(before, log, cut, random)
      try {
        await lookAt(state, setting, history, cut)
      } catch (error) {
        const replay = `QCOW2_SEED=${seed + index} QCOW2_POWER_CUTS=1`
        throw new Error(
          `${replay}: cut ${cuts} after ${cut} of ${log.length} events: ${String(error)}\n${JSON.stringify(setting)}`,
          { cause: error },
        )
      }
    }
  }
  t.pass()
})

test('whenever the power goes while the disk is resized, it has the old size or the new one, and nothing is lost but what was cut off', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed} QCOW2_POWER_CUTS=${runs}`)
  for (let index = 0; index < runs; index++) {
    const random = new SeededRandom((seed + index) >>> 0)
    const setting: Setting = {
      ...randomSetting(random),
      extendedL2: false,
      clusterSize: 512,
      syncPolicy: 'flush',
    }
    const contents = await imageBytes({ ...setting, size: setting.sectors * sector })
    const before = contents.toBytes()
    const disk = await open(contents, setting, random)
    const values = new Uint8Array(setting.sectors)
    values.fill(backingValue, 0, Math.min(setting.backingSectors, setting.sectors))
    const written = random.integer(setting.sectors)
    values.fill(7, 0, written)
    if (written > 0) await disk.image.write(fill(written * sector, 7), 0)
    await disk.image.flush()
    const begun = disk.memory.log.length
    // Up to an L1 table of many clusters, for which refcount blocks are needed.
    const sectors = random.pick([random.integer(setting.sectors), setting.sectors + random.integer(2 ** 19)])
    await disk.image.resize(sectors * sector, { shrink: true })
    if (random.chance(0.5)) await disk.image.close()
    for (let cuts = 0; cuts < cutsPerRun; cuts++) {
      const cut = random.between(begun, disk.memory.log.length)
      try {
        await lookAtResized(afterPowerCut(before, disk.memory.log, cut, random), setting, values, sectors)
      } catch (error) {
        const replay = `QCOW2_SEED=${seed + index} QCOW2_POWER_CUTS=1`
        throw new Error(
          `${replay}: ${setting.sectors} to ${sectors} sectors, cut ${cuts} after ${cut}: ${String(error)}`,
          { cause: error },
        )
      }
    }
  }
  t.pass()
})

async function lookAtResized(
  contents: SparseBytes,
  setting: Setting,
  values: Uint8Array,
  sectors: number,
): Promise<void> {
  await mustBeSound(contents)
  const disk = await open(contents, setting)
  const size = disk.image.size / sector
  if (size !== sectors && size !== values.length) throw new Error(`size ${size} is neither`)
  const seen = await readDisk(disk, 0, Math.min(size, values.length + 100) * sector)
  for (let at = 0; at < seen.length / sector; at++) {
    const value = seen[at * sector] as number
    if (value === (values[at] ?? 0)) continue
    // Of what is being cut off parts may be gone: zeros, or the backing file again.
    if (at >= sectors && (value === 0 || (value === backingValue && at < setting.backingSectors))) continue
    throw new Error(`sector ${at} is ${value}, not ${values[at] ?? 0}`)
  }
  await disk.image.close()
}
