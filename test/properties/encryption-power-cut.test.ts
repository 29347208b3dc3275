import test from 'ava'
import { encodeLuksHeader } from '../../lib/luks/header.js'
import { newVolumeHeader, volumeSpec } from '../../lib/luks/new-volume.js'
import { findKey } from '../../lib/luks/key-slots.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { type FoundLuks, lockedVolume, readEncryptionHeader } from '../../lib/qcow2/encryption-header.js'
import { addKey, removeKey } from '../../lib/qcow2/key-slots.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import type { BlockBackend } from '../../lib/queue/backend.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { afterPowerCut } from '../support/power-cut.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

/*
 * The power goes while an encrypted image is made, or while its key slots change (E24). Each sync that stands there is left out in turn, too: then
 * something must be found.
 */

const seed = seedOfRun()
const spec = volumeSpec({ cipherAlg: 'aes-128', cipherMode: 'cbc', iterTime: 1 })
const shape = {
  version: 3,
  size: 1024 ** 2,
  clusterSize: 4096,
  refcountBits: 16,
  lazyRefcounts: false,
} as const
const [old, added] = ['old', 'added'].map((text) => Buffer.from(text)) as [Buffer, Buffer]
/** States of the disk that are looked at for each of the changes; and at most, until something is found where a sync is left out. */
const cuts = 60
const mutantCuts = 2000

type Work = (backend: BlockBackend) => Promise<void>
type Judge = (backend: BlockBackend, isOver: boolean) => Promise<void>

/** A file whose n-th flush does nothing. */
function withoutFlush(memory: MemoryBackend, left: number): BlockBackend {
  let count = 0
  return new Proxy<BlockBackend>(memory, {
    get(target, name) {
      if (name === 'flush' && count++ === left) return () => Promise.resolve()
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

/** @returns what is wrong after one of the power cuts, if anything is */
async function firstProblem(
  before: Uint8Array,
  work: Work,
  judge: Judge,
  leftOut: number,
): Promise<string | undefined> {
  const random = new SeededRandom(seed)
  const memory = new MemoryBackend({ contents: SparseBytes.from(before), record: true })
  await work(withoutFlush(memory, leftOut))
  const { log } = memory
  for (let index = 0; index < (leftOut < 0 ? cuts : mutantCuts); index++) {
    // After all of it, too: what was told is to stay.
    const cut = index % 8 === 0 ? log.length : random.integer(log.length + 1)
    const contents = afterPowerCut(before, log, cut, random)
    try {
      await judge(new MemoryBackend({ contents }), cut === log.length)
    } catch (error) {
      return `QCOW2_SEED=${seed}: cut ${index} after ${cut} of ${log.length} events: ${String(error)}`
    }
  }
  return undefined
}

async function newImage(): Promise<Uint8Array> {
  const memory = new MemoryBackend()
  await createQcow2(memory, { ...shape, luksHeader: await newVolumeHeader(spec, old) })
  return memory.contents.toBytes()
}

async function luksOf(backend: BlockBackend): Promise<FoundLuks> {
  return readEncryptionHeader(backend, (await readHeader(backend)).header)
}

/** Every slot that says it is in use is opened by its passphrase. */
async function mustOpen(backend: BlockBackend, passphrases: readonly Buffer[]): Promise<FoundLuks> {
  const luks = await luksOf(backend)
  const volume = lockedVolume(backend, luks)
  for (const [slot, passphrase] of passphrases.entries()) {
    if (luks.header.slots[slot]?.active === true) await findKey(volume, passphrase, [slot])
  }
  return luks
}

const opener = { passphrase: old }

async function withTwoKeys(): Promise<Uint8Array> {
  const memory = new MemoryBackend({ contents: SparseBytes.from(await newImage()) })
  const { header } = await readHeader(memory)
  await addKey(memory, header, opener, { passphrase: added, keySlot: 6, iterTime: 1 })
  return memory.contents.toBytes()
}

/** In slot 6, which reaches over two sectors. */
const ofSlot6 = [old, old, old, old, old, old, added]

async function check(
  name: string,
  before: Uint8Array,
  work: Work,
  judge: Judge,
  flushes: number,
): Promise<string[]> {
  const problems: string[] = []
  const right = await firstProblem(before, work, judge, -1)
  if (right !== undefined) problems.push(`${name}: ${right}`)
  for (let leftOut = 0; leftOut < flushes; leftOut++) {
    if ((await firstProblem(before, work, judge, leftOut)) === undefined)
      problems.push(`${name}: nothing is found without flush ${leftOut}`)
  }
  return problems
}

test('a crash while an encrypted image is made leaves none, or one that its passphrase opens', async (t) => {
  const luksHeader = await newVolumeHeader(spec, old)
  const judge: Judge = async (backend, isOver) => {
    const magic = new Uint8Array(4)
    await backend.read(magic, 0)
    if (magic.every((byte) => byte === 0) && !isOver) return
    const { header } = await mustOpen(backend, [old])
    if (header.slots[0]?.active !== true) throw new Error('no key')
  }
  const work: Work = (backend) => createQcow2(backend, { ...shape, luksHeader })
  t.deepEqual(await check('create', new Uint8Array(0), work, judge, 2), [])
})

test('a crash while a key is added leaves every slot that is in use with its key', async (t) => {
  const judge: Judge = async (backend, isOver) => {
    const { header } = await mustOpen(backend, ofSlot6)
    if (header.slots[0]?.active !== true) throw new Error('the old key is gone')
    if (isOver && header.slots[6]?.active !== true) throw new Error('the new key is not there')
  }
  const work: Work = async (backend) => {
    const { header } = await readHeader(backend)
    await addKey(backend, header, opener, { passphrase: added, keySlot: 6, iterTime: 1 })
  }
  t.deepEqual(await check('add', await newImage(), work, judge, 2), [])
})

test('a crash while a key is removed leaves it whole, or to be wiped, or gone', async (t) => {
  const before = await withTwoKeys()
  const original = new MemoryBackend({ contents: SparseBytes.from(before) })
  const { area, header: full } = await luksOf(original)
  const { materialOffset = 0 } = full.slots[6] ?? {}
  const material = before.slice(area.offset + materialOffset, area.offset + materialOffset + 16 * 4000)
  const judge: Judge = async (backend, isOver) => {
    const { header } = await mustOpen(backend, ofSlot6)
    const slot = header.slots[6]
    if (header.slots[0]?.active !== true || slot === undefined) throw new Error('the other key is gone')
    if (isOver && slot.active) throw new Error('the key is not gone')
    if (slot.active || slot.iterations !== 0 || slot.salt.some((byte) => byte !== 0)) {
      if (isOver) throw new Error('the slot is not empty')
      return
    }
    const now = new Uint8Array(material.length)
    await backend.read(now, area.offset + materialOffset)
    for (let at = 0; at < now.length; at += 512) {
      if (Buffer.compare(now.subarray(at, at + 512), material.subarray(at, at + 512)) === 0)
        throw new Error(`the slot looks empty, and sector ${at / 512} of its material is there`)
    }
  }
  const work: Work = async (backend) => {
    const { header } = await readHeader(backend)
    t.deepEqual(await removeKey(backend, header, { passphrase: added }), [6])
  }
  t.deepEqual(await check('remove', before, work, judge, 3), [])
})

test('what an unfinished removal has left is wiped by the next change of a key slot', async (t) => {
  const before = await withTwoKeys()
  const memory = new MemoryBackend({ contents: SparseBytes.from(before) })
  const { area, header } = await luksOf(memory)
  const slots = header.slots.map((slot, index) => (index === 6 ? { ...slot, active: false } : slot))
  await memory.write(encodeLuksHeader({ ...header, slots }), area.offset)
  const image = (await readHeader(memory)).header
  await addKey(memory, image, opener, { passphrase: added, keySlot: 1, iterTime: 1 })
  const found = (await luksOf(memory)).header
  t.like(found.slots[6], { active: false, iterations: 0 })
  t.true(found.slots[1]?.active)
  const { materialOffset = 0 } = found.slots[6] ?? {}
  const at = area.offset + materialOffset
  const now = memory.contents.toBytes().subarray(at, at + 512)
  t.notDeepEqual(Buffer.from(now), Buffer.from(before.subarray(at, at + 512)))
})
