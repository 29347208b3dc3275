import { sectorSize } from '../../lib/base/units.js'

/**
 * Guest sectors that say what they are: each holds a magic word, the guest LBA it was written for, the generation of the write, and 125
 * words that follow from these. So a sector of another place, a torn one and an old one are told apart, whatever the mapping says.
 */

/** What a guest sector shows, as a number: a generation (1 and up), or one of these. */
export const zeroValue = 0
/** The backing file's bytes. */
export const backingValue = 0x7fffffff
/** Bytes that no guest wrote to this place as a whole: a torn sector, or metadata. */
export const garbageValue = -1
/** The payload of another LBA. */
export const foreignValue = -2

const magic = 0x51434f57
/** Of sectors that compress: most of their words are this one. */
const simpleMagic = 0x51434f43
const simpleWords = 56
const words = sectorSize / 4

/** Fill the sector at `at` with the payload of `lba`. */
export function stampSector(bytes: Uint8Array, at: number, lba: number, generation: number): void {
  stamp(new DataView(bytes.buffer, bytes.byteOffset + at, sectorSize), magic, lba, generation)
}

function stamp(view: DataView, first: number, lba: number, generation: number): void {
  view.setUint32(0, first)
  view.setUint32(4, lba)
  view.setUint32(8, generation)
  let state = seedOf(lba, generation)
  for (let word = 3; word < words; word++) {
    state = nextWord(state)
    view.setUint32(word * 4, wordAt(word, first, state))
  }
}

function seedOf(lba: number, generation: number): number {
  return (Math.imul(lba + 1, 0x9e3779b1) ^ Math.imul(generation, 0x85ebca6b)) >>> 0
}

function wordAt(word: number, first: number, state: number): number {
  return first === magic || word < simpleWords ? state : simpleMagic
}

/** The payload of `sectors` sectors from `lba` on. */
export function stampedBytes(lba: number, sectors: number, generation: number): Uint8Array {
  const bytes = new Uint8Array(sectors * sectorSize)
  for (let step = 0; step < sectors; step++) stampSector(bytes, step * sectorSize, lba + step, generation)
  return bytes
}

/** As `stampedBytes`, of sectors that get smaller by half when they are compressed. */
export function compressibleBytes(lba: number, sectors: number, generation: number): Uint8Array {
  const bytes = new Uint8Array(sectors * sectorSize)
  for (let step = 0; step < sectors; step++) {
    const view = new DataView(bytes.buffer, step * sectorSize, sectorSize)
    stamp(view, simpleMagic, lba + step, generation)
  }
  return bytes
}

/** What a sector is. `lba`: -1 zeros, -2 no whole payload. */
export type Payload = { readonly lba: number; readonly generation: number }

export const zeroPayload: Payload = { lba: -1, generation: zeroValue }
export const noPayload: Payload = { lba: -2, generation: 0 }

/** Read the sector at `at`. */
export function readPayload(bytes: Uint8Array, at: number): Payload {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, sectorSize)
  const first = view.getUint32(0)
  if (first === 0) {
    for (let word = 1; word < words; word++) if (view.getUint32(word * 4) !== 0) return noPayload
    return zeroPayload
  }
  if (first !== magic && first !== simpleMagic) return noPayload
  const lba = view.getUint32(4)
  const generation = view.getUint32(8)
  let state = seedOf(lba, generation)
  for (let word = 3; word < words; word++) {
    state = nextWord(state)
    if (view.getUint32(word * 4) !== wordAt(word, first, state)) return noPayload
  }
  return { lba, generation }
}

/** What the guest sees at `lba` when a sector with this payload is there. */
export function valueAt(lba: number, payloadLba: number, generation: number): number {
  if (payloadLba === lba) return generation
  if (payloadLba === -1) return zeroValue
  return payloadLba === -2 ? garbageValue : foreignValue
}

/** In words, for a failure. */
export function describeValue(value: number): string {
  if (value === zeroValue) return 'zeros'
  if (value === backingValue) return 'the backing file'
  if (value === garbageValue) return 'bytes that nobody wrote there'
  if (value === foreignValue) return "another sector's bytes"
  return `generation ${value}`
}

/** A linear congruence; high bits folded in, so that a shifted sector does not match. */
function nextWord(state: number): number {
  const next = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return (next ^ (next >>> 15)) >>> 0
}
