import assert from 'node:assert/strict'
import { copyFile, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { compactImage, createImage, type DiskImage, openImage } from '../../lib/index.js'
import { countedClusters, fileHash, shownBy, type ToolImage } from '../support/compact-image.js'
import { encryptedName, passphrase, secret } from '../support/encrypted.js'
import { compatOf, describeShape, makeBacking, randomShape, type Shape } from '../support/image-shapes.js'
import { qemuCheckOf, qemuIoOn } from '../support/qemu.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

/** A dozen every day; QCOW2_COMPACTIONS=300 or more for a full run. */
const images = countOfRun('QCOW2_COMPACTIONS', 12)
const seed = seedOfRun()

/** An image with a past, most of whose clusters have been given up again. */
class UsedImage {
  readonly log: string[] = []
  readonly path: string
  readonly #random: SeededRandom
  readonly #folder: string
  readonly #shape: Shape
  readonly #isEncrypted: boolean
  readonly #isZstd: boolean
  #size: number
  #made = 0

  constructor(folder: string, random: SeededRandom) {
    this.#random = random
    this.#folder = folder
    this.path = join(folder, 'disk.qcow2')
    this.#shape = randomShape(random)
    this.#size = this.#shape.size
    this.#isEncrypted = this.#shape.version === 3 && this.#shape.dataFile === undefined && random.chance(0.2)
    this.#isZstd =
      this.#shape.version === 3 &&
      this.#shape.dataFile === undefined &&
      !this.#isEncrypted &&
      random.chance(0.4)
    this.log.push(`${describeShape(this.#shape)}, zstd ${this.#isZstd}, encrypted ${this.#isEncrypted}`)
  }

  get openOptions(): NonNullable<Parameters<typeof openImage>[1]> {
    const encryption = this.#isEncrypted ? { encryption: { passphrase } } : {}
    return { dataFile: 'same-directory', ...encryption }
  }

  get tool(): ToolImage {
    return this.#isEncrypted
      ? [...secret, '--image-opts', encryptedName(this.path)]
      : ['-f', 'qcow2', this.path]
  }

  async make(): Promise<void> {
    const { clusterSize, refcountBits, extendedL2 = false, size, backing, dataFile } = this.#shape
    if (backing !== undefined) await makeBacking(this.#folder, backing, this.#random)
    await createImage(this.path, {
      size,
      clusterSize,
      refcountBits,
      extendedL2,
      compat: compatOf(this.#shape),
      ...(this.#isZstd ? { compressionType: 'zstd' } : {}),
      ...(backing === undefined
        ? {}
        : { backingFile: `base.${backing.format}`, backingFormat: backing.format }),
      ...(dataFile === undefined ? {} : { dataFile: `${this.path}.data`, dataFileRaw: dataFile === 'raw' }),
      ...(this.#isEncrypted ? { encrypt: { format: 'luks' as const, passphrase, iterTime: 1 } } : {}),
    })
    for (let round = this.#random.between(1, 3); round > 0; round--) {
      await this.#ours()
      if (this.#isZstd || this.#random.chance(0.4)) await this.#theirs()
    }
  }

  async #ours(): Promise<void> {
    const image = await openImage(this.path, this.openOptions)
    try {
      for (let left = this.#random.between(5, 40); left > 0; left--) await this.#change(image)
      for (let left = this.#random.integer(12); left > 0; left--) await this.#discard(image)
    } finally {
      await image.close()
    }
  }

  async #change(image: DiskImage): Promise<void> {
    const choice = this.#random.integer(100)
    const canCompress = this.#shape.dataFile === undefined && !this.#isEncrypted && !this.#isZstd
    if (choice < 35 || (choice < 60 && !canCompress)) await this.#write(image)
    else if (choice < 60) await this.#compress(image)
    else if (choice < 70) await this.#zero(image)
    else if (choice < 80) await this.#discard(image)
    else if (choice < 90) await this.#snapshot(image)
    else if (choice < 96) await this.#bitmap(image)
    else await this.#resize(image)
  }

  #range(unit: number, most: number): { offset: number; length: number } {
    const units = Math.max(1, Math.floor(this.#size / unit))
    const first = this.#random.integer(units)
    const length = Math.min(this.#random.between(1, most), units - first) * unit
    return { offset: first * unit, length: Math.min(length, this.#size - first * unit) }
  }

  async #write(image: DiskImage): Promise<void> {
    const { offset, length } = this.#range(512, (6 * this.#shape.clusterSize) / 512)
    this.log.push(`write ${offset} ${length}`)
    await image.write(this.#random.bytes(length), offset)
  }

  async #compress(image: DiskImage): Promise<void> {
    const { clusterSize } = this.#shape
    const { offset, length } = this.#range(clusterSize, 6)
    const bytes = new Uint8Array(length)
    // Each shrinks by another part.
    for (let at = 0; at < length; at += clusterSize)
      bytes.set(this.#random.bytes(Math.min(this.#random.integer(clusterSize), length - at)), at)
    this.log.push(`compress ${offset} ${length}`)
    await image.writeCompressed(bytes, offset)
  }

  async #zero(image: DiskImage): Promise<void> {
    const range = this.#range(512, (4 * this.#shape.clusterSize) / 512)
    this.log.push(`zero ${range.offset} ${range.length}`)
    await image.writeZeroes({ ...range, unmap: this.#random.chance(0.5) })
  }

  async #discard(image: DiskImage): Promise<void> {
    // There old contents would show again.
    if (this.#shape.version === 2 && this.#shape.backing !== undefined) return
    const range = this.#range(this.#shape.clusterSize, 5)
    this.log.push(`discard ${range.offset} ${range.length}`)
    await image.discard(range)
  }

  async #snapshot(image: DiskImage): Promise<void> {
    if (this.#shape.dataFile !== undefined) return
    const known = await image.snapshots.list()
    const old =
      known.length > 2 || this.#random.chance(0.3) ? known[this.#random.integer(known.length)] : undefined
    this.log.push(old === undefined ? 'snapshot' : `delete ${old.name}`)
    if (old !== undefined) await image.snapshots.delete({ id: old.id })
    else
      await image.snapshots.create(`s${this.#made++}`).catch((error: unknown) => {
        if ((error as { code?: string }).code !== 'ERR_NOT_SUPPORTED') throw error
      })
  }

  async #bitmap(image: DiskImage): Promise<void> {
    if (this.#shape.version === 2) return
    const known = await image.bitmaps.list()
    const old =
      known.length > 2 || this.#random.chance(0.3) ? known[this.#random.integer(known.length)] : undefined
    this.log.push(old === undefined ? 'bitmap' : `remove ${old.name}`)
    if (old !== undefined) await image.bitmaps.remove(old.name)
    else await image.bitmaps.add(`b${this.#made++}`, { granularity: this.#random.pick([512, 4096, 65536]) })
  }

  async #resize(image: DiskImage): Promise<void> {
    const known = await image.snapshots.list()
    if (this.#shape.version === 2 && known.length > 0) return
    const size = this.#random.between(1, Math.ceil((this.#shape.size * 3) / 512)) * 512
    this.log.push(`resize ${size}`)
    await image.resize(size, { shrink: true })
    this.#size = size
  }

  async #theirs(): Promise<void> {
    const commands: string[] = []
    for (let left = this.#random.between(1, this.#isZstd ? 30 : 10); left > 0; left--) {
      if (this.#isZstd && this.#random.chance(0.5)) {
        // Whoever runs this may have nothing that writes zstd.
        const { offset, length } = this.#range(this.#shape.clusterSize, 1)
        commands.push(`write -c -P ${this.#random.between(1, 9)} ${offset} ${length}`)
        continue
      }
      const { offset, length } = this.#range(512, (3 * this.#shape.clusterSize) / 512)
      const verb = this.#random.pick(['write -P 5', 'write -P 6', 'write -z', 'write -z -u', 'discard'])
      commands.push(`${verb} ${offset} ${length}`)
    }
    this.log.push(...commands)
    const options = this.#isEncrypted ? [] : ['-d', 'unmap']
    const sound = `${this.path}.sound`
    assert.equal(await qemuCheckOf(this.tool), '', 'what we leave is sound')
    await copyFile(this.path, sound)
    // It compresses into unallocated clusters only, and says so of others.
    await qemuIoOn([...options, ...this.tool], commands).catch((error: unknown) => {
      if (!this.#isZstd) throw error
    })
    // Compressing behind discards it damages an image now and then, as QCOW2_SEED=737937478 shows; that is not what is looked at here.
    if (this.#isZstd && (await qemuCheckOf(this.tool)) !== '') await copyFile(sound, this.path)
    await rm(sound)
  }
}

for (let index = 0; index < images; index++) {
  test.serial(
    `image ${index} takes what it needs after compacting, shows what it showed, and is left alone then`,
    async (t) => {
      t.timeout(10 * 60_000)
      const ownSeed = (seed + index) >>> 0
      const folder = await makeFolder(t, { fast: true })
      const image = new UsedImage(folder, new SeededRandom(ownSeed))
      try {
        await image.make()
        const before = await shownBy(image.path, image.tool, image.openOptions)
        const encryption = image.openOptions.encryption
        const options = encryption === undefined ? {} : { encryption }
        const outcome = await compactImage(image.path, options)
        t.is(await qemuCheckOf(image.tool), '')
        t.deepEqual(await shownBy(image.path, image.tool, image.openOptions), before)
        const file = await readFile(image.path)
        const clusterSize = 2 ** file.readUInt32BE(20)
        const needed = countedClusters(file) * clusterSize
        t.true(file.length <= needed, `${file.length} bytes for ${needed}`)
        t.true(outcome.lengthAfter <= outcome.lengthBefore)
        const hash = await fileHash(image.path)
        const again = await compactImage(image.path, options)
        t.is(again.moved, 0)
        t.is(await fileHash(image.path), hash)
      } catch (error) {
        throw new Error(
          `QCOW2_SEED=${ownSeed} QCOW2_COMPACTIONS=1: ${String(error)}; ${image.log.join('; ')}`,
          { cause: error },
        )
      }
    },
  )
}
