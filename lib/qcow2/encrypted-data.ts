import { notSupported } from '../base/errors.js'
import { alignDown, alignUp } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import type { SectorCipher } from '../luks/sector-cipher.js'
import type { GuestData } from './guest-data.js'
import { type SectorAccess, SectorGate, type SectorUse } from './sector-gate.js'

/** What lies under the encryption: the file, or whatever else holds the clusters. */
type Below = GuestData

/** By what number a sector is encrypted: LUKS by its place in the file, the legacy AES by its place in the disk. */
export type Tweak = 'host' | 'guest'

/** Encrypted or decrypted in one turn of the event loop, and held as a copy. Bytes. */
const pieceBytes = 512 * 1024

/**
 * Encrypts what is written to a guest's clusters, and decrypts what is read, in sectors of 512 bytes. What a caller writes is
 * never altered. A request's ends within a sector take the rest of that sector with them: see SectorGate.
 */
export class EncryptedData implements GuestData {
  readonly encrypted = true
  readonly #below: Below
  readonly #cipher: SectorCipher
  readonly #tweak: Tweak
  readonly #gate = new SectorGate()

  constructor(below: Below, cipher: SectorCipher, tweak: Tweak) {
    this.#below = below
    this.#cipher = cipher
    this.#tweak = tweak
  }

  get length(): number {
    return this.#below.length
  }

  async read(bytes: Uint8Array, host: number, guest: number): Promise<void> {
    await this.#inPieces(bytes, host, 'read', (piece, at) => this.#readPiece(piece, host + at, guest + at))
  }

  /** One piece after the other, with the sectors of all of them held. Pieces end with sectors. @param visit  told how far behind `host` it begins */
  async #inPieces(
    bytes: Uint8Array,
    host: number,
    use: SectorUse,
    visit: (piece: Uint8Array, at: number) => Promise<void>,
  ): Promise<void> {
    const access = this.#enter(host, bytes.byteLength, use)
    const held = access instanceof Promise ? await access : access
    try {
      for (let done = 0; done < bytes.byteLength;) {
        const length = Math.min(bytes.byteLength - done, pieceBytes - ((host + done) % sectorSize))
        await visit(bytes.subarray(done, done + length), done)
        done += length
      }
    } finally {
      this.#gate.leave(held)
    }
  }

  async #readPiece(bytes: Uint8Array, host: number, guest: number): Promise<void> {
    const start = alignDown(host, sectorSize)
    const end = alignUp(host + bytes.byteLength, sectorSize)
    const isWhole = start === host && end === host + bytes.byteLength
    const sectors = isWhole ? bytes : new Uint8Array(end - start)
    await this.#below.read(sectors, start, guest - (host - start))
    this.#cipher.decrypt(sectors, sectors, this.#sector(start, guest - (host - start)))
    if (!isWhole) bytes.set(sectors.subarray(host - start, host - start + bytes.byteLength))
  }

  async write(bytes: Uint8Array, host: number, guest: number): Promise<void> {
    if (this.#tweak === 'guest') {
      throw notSupported('Images with the legacy AES encryption are read only: convert them')
    }
    const isWhole = host % sectorSize === 0 && bytes.byteLength % sectorSize === 0
    const use = isWhole ? 'whole' : 'part'
    await this.#inPieces(bytes, host, use, (piece, at) => this.#writePiece(piece, host + at, guest + at))
  }

  async #writePiece(bytes: Uint8Array, host: number, guest: number): Promise<void> {
    const start = alignDown(host, sectorSize)
    const end = alignUp(host + bytes.byteLength, sectorSize)
    const guestStart = guest - (host - start)
    const encrypted = new Uint8Array(end - start)
    let plain = bytes
    if (encrypted.byteLength !== bytes.byteLength) {
      plain = encrypted
      await this.#readEnds(plain, start, guestStart, { from: host, to: host + bytes.byteLength })
      plain.set(bytes, host - start)
    }
    this.#cipher.encrypt(plain, encrypted, this.#sector(start, guestStart))
    await this.#below.write(encrypted, start, guestStart)
  }

  /** The first and the last sector of `sectors`, where they are not written as a whole. */
  async #readEnds(
    sectors: Uint8Array,
    start: number,
    guestStart: number,
    written: { from: number; to: number },
  ): Promise<void> {
    const last = sectors.byteLength - sectorSize
    const readSector = async (at: number): Promise<void> => {
      const sector = sectors.subarray(at, at + sectorSize)
      await this.#readPiece(sector, start + at, guestStart + at)
    }
    const isFirstPartial = written.from > start
    if (isFirstPartial) await readSector(0)
    const isLastPartial = written.to < start + sectors.byteLength
    if (isLastPartial && !(isFirstPartial && last === 0)) await readSector(last)
  }

  /** Zeros are written like anything else: a hole would decrypt to noise. */
  async writeZeroes(
    host: number,
    length: number,
    _options: { unmap: boolean },
    guest: number,
  ): Promise<void> {
    const zeros = new Uint8Array(Math.min(length, pieceBytes))
    for (let done = 0; done < length; done += pieceBytes) {
      await this.write(zeros.subarray(0, Math.min(pieceBytes, length - done)), host + done, guest + done)
    }
  }

  truncate(length: number): Promise<void> {
    return this.#below.truncate(length)
  }

  punch(host: number, length: number): Promise<void> {
    return this.#below.punch(host, length)
  }

  #enter(offset: number, length: number, use: SectorUse): SectorAccess | Promise<SectorAccess> {
    const first = Math.floor(offset / sectorSize)
    return this.#gate.enter(first, Math.floor((offset + Math.max(1, length) - 1) / sectorSize), use)
  }

  #sector(host: number, guest: number): number {
    return (this.#tweak === 'host' ? host : guest) / sectorSize
  }
}
