import { Qcow2Error, unsupported } from '../base/errors.js'
import { alignUp, divideRoundingUp } from '../base/integers.js'
import { type CipherSpec, diskNames, keyBytesOf, parseDiskNames } from './algorithms.js'
import { type HashAlg, hashAlgs } from './names.js'
import {
  headerBytes,
  headerFields,
  limits,
  luksMagic,
  luksSector,
  materialAlignment,
  slotActive,
  slotCount,
  slotFields,
  slotInactive,
  slotOffset,
  stripes,
} from './spec.js'

export type KeySlot = {
  readonly active: boolean
  readonly iterations: number
  readonly salt: Uint8Array
  /** Bytes from the start of the header. */
  readonly materialOffset: number
}

/** What a LUKS header says. Nothing in it is secret. */
export type LuksHeader = {
  readonly cipher: CipherSpec
  readonly hash: HashAlg
  /** Bytes from the start of the header: where it and the material of its slots end. */
  readonly payloadOffset: number
  readonly digest: Uint8Array
  readonly digestSalt: Uint8Array
  readonly digestIterations: number
  readonly uuid: string
  readonly slots: readonly KeySlot[]
}

/** Bytes that the material of a slot takes: whole sectors, since those are encrypted. */
export function materialBytes(cipher: CipherSpec): number {
  return alignUp(keyBytesOf(cipher) * stripes, luksSector)
}

/** Where a new header has the material of a slot, and (for the slot behind the last) its end: as QEMU and cryptsetup place them. */
export function defaultMaterialOffset(cipher: CipherSpec, slot: number): number {
  return materialAlignment + slot * alignUp(materialBytes(cipher), materialAlignment)
}

/** Where a header stands, for messages and limits. */
export type HeaderPlace = {
  readonly path: string
  /** In the file, in bytes. */
  readonly offset: number
  /** Bytes that the header and its material may take. */
  readonly areaBytes: number
}

/**
 * Read a header, and see that nothing in it points where it must not. The price of a key is not looked at here: that a header asks too
 * much is told when a key is to be derived.
 * @param bytes  the first `headerBytes`
 * @throws ERR_CORRUPT              what no header says
 * @throws ERR_UNSUPPORTED_FEATURE  a version, cipher, mode or hash that has no meaning here
 */
export function parseLuksHeader(bytes: Uint8Array, place: HeaderPlace): LuksHeader {
  const fail = (within: number, what: string): Qcow2Error => headerError(place, within, what)
  const { offsets } = headerFields
  const fields = headerFields.decode(bytes, 0, place.offset)
  if (!luksMagic.every((byte, index) => fields.magic[index] === byte)) {
    throw fail(offsets.magic, 'Volume is not in LUKS format')
  }
  const unknown = (what: string): Qcow2Error =>
    unsupported(`Unsupported LUKS ${what}`, {
      path: place.path,
      offset: place.offset,
      structure: 'LUKS header',
    })
  if (fields.version !== 1) throw unknown(`version ${fields.version}`)
  const text = (name: 'cipherName' | 'cipherMode' | 'hashName' | 'uuid'): string => {
    const found = textOf(fields[name])
    if (found === undefined) throw fail(offsets[name], `${name} is no text that ends with NUL`)
    return found
  }
  if (fields.keyBytes < 1 || fields.keyBytes > limits.keyBytes) {
    throw fail(offsets.keyBytes, `A key of ${fields.keyBytes} bytes, at most ${limits.keyBytes} are possible`)
  }
  const cipher = parseDiskNames(text('cipherName'), text('cipherMode'), fields.keyBytes)
  if ('unknown' in cipher) throw unknown(cipher.unknown)
  const hashName = text('hashName')
  const hash = hashAlgs.find((name) => name === hashName)
  if (hash === undefined) throw unknown(`hash '${hashName}'`)
  if (fields.digestIterations === 0) throw fail(offsets.digestIterations, 'The digest has 0 iterations')
  const payloadOffset = fields.payloadSector * luksSector
  if (payloadOffset > Math.min(place.areaBytes, limits.payloadOffset)) {
    throw fail(offsets.payloadSector, `The payload begins at ${payloadOffset}, behind the header's area`)
  }
  const slots = parseSlots(bytes, materialBytes(cipher), payloadOffset, fail)
  return {
    cipher,
    hash,
    payloadOffset,
    digest: fields.digest,
    digestSalt: fields.digestSalt,
    digestIterations: fields.digestIterations,
    uuid: text('uuid'),
    slots,
  }
}

function parseSlots(
  bytes: Uint8Array,
  length: number,
  payloadOffset: number,
  fail: (within: number, what: string) => Qcow2Error,
): KeySlot[] {
  const slots: KeySlot[] = []
  for (let slot = 0; slot < slotCount; slot++) {
    const at = slotOffset(slot)
    const fields = slotFields.decode(bytes, at, at)
    if (fields.state !== slotActive && fields.state !== slotInactive) {
      throw fail(at, `Key slot ${slot} is neither active nor inactive`)
    }
    if (fields.stripes !== stripes)
      throw fail(at, `Key slot ${slot} has ${fields.stripes} stripes, not ${stripes}`)
    const materialOffset = fields.materialSector * luksSector
    if (materialOffset < headerBytes || materialOffset + length > payloadOffset) {
      throw fail(at, `The material of key slot ${slot} overlaps the header or the payload`)
    }
    const other = slots.findIndex((known) => Math.abs(known.materialOffset - materialOffset) < length)
    if (other >= 0) throw fail(at, `The material of key slots ${other} and ${slot} overlaps`)
    const active = fields.state === slotActive
    if (active && fields.iterations === 0) throw fail(at, `Key slot ${slot} has 0 iterations`)
    slots.push({ active, iterations: fields.iterations, salt: fields.salt, materialOffset })
  }
  return slots
}

export function encodeLuksHeader(header: LuksHeader): Uint8Array {
  const bytes = new Uint8Array(headerBytes)
  const names = diskNames(header.cipher)
  headerFields.patch(bytes, 0, {
    magic: luksMagic,
    version: 1,
    cipherName: padded(names.cipherName, 32),
    cipherMode: padded(names.cipherMode, 32),
    hashName: padded(header.hash, 32),
    payloadSector: divideRoundingUp(header.payloadOffset, luksSector),
    keyBytes: keyBytesOf(header.cipher),
    digest: header.digest,
    digestSalt: header.digestSalt,
    digestIterations: header.digestIterations,
    uuid: padded(header.uuid, 40),
  })
  for (const [slot, entry] of header.slots.entries()) bytes.set(encodeSlot(entry), slotOffset(slot))
  return bytes
}

export function encodeSlot(slot: KeySlot): Uint8Array {
  return slotFields.encode({
    state: slot.active ? slotActive : slotInactive,
    iterations: slot.iterations,
    salt: slot.salt,
    materialSector: slot.materialOffset / luksSector,
    stripes,
  })
}

function headerError({ path, offset }: HeaderPlace, within: number, what: string): Qcow2Error {
  const at = offset + within
  return new Qcow2Error('ERR_CORRUPT', `${what} (LUKS header at offset ${at})`, {
    path,
    offset: at,
    structure: 'LUKS header',
  })
}

/** Plain text up to the NUL that must be there: it goes to a terminal. */
function textOf(bytes: Uint8Array): string | undefined {
  const end = bytes.indexOf(0)
  const text = Buffer.from(bytes.subarray(0, Math.max(0, end))).toString('latin1')
  return end < 0 || !/^[\x20-\x7e]*$/.test(text) ? undefined : text
}

function padded(text: string, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  bytes.set(Buffer.from(text, 'latin1'))
  return bytes
}
