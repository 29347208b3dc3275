import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { createImage, type DiskImage, openImage } from '../../lib/index.js'
import { extendedClusterSizes } from '../support/image-shapes.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead } from '../support/qemu.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

/** A dozen every day; QCOW2_SNAPSHOT_SEQUENCES=300 or more for a full run. */
const sequences = countOfRun('QCOW2_SNAPSHOT_SEQUENCES', 12)
const seed = seedOfRun()

type FrozenCopy = { readonly id: string; readonly name: string; readonly content: Buffer }

/** A disk with snapshots beside what they must show. */
class SnapshotSequence {
  readonly log: string[] = []
  readonly #random: SeededRandom
  readonly #path: string
  readonly #clusterSize: number
  readonly #version: 2 | 3
  #content: Buffer
  #snapshots: FrozenCopy[] = []
  #image: DiskImage | undefined

  private constructor(
    random: SeededRandom,
    path: string,
    shape: { clusterSize: number; version: 2 | 3; size: number },
  ) {
    this.#random = random
    this.#path = path
    this.#clusterSize = shape.clusterSize
    this.#version = shape.version
    this.#content = Buffer.alloc(shape.size)
  }

  static async begin(folder: string, random: SeededRandom): Promise<SnapshotSequence> {
    const extendedL2 = random.chance(0.3)
    const clusterSize = random.pick(
      extendedL2 ? extendedClusterSizes : [512, 1024, 4096, 65536, 65536, 2 ** 21],
    )
    const version = extendedL2 ? 3 : random.pick([3, 3, 3, 2] as const)
    const refcountBits = version === 2 ? 16 : random.pick([4, 8, 16, 16, 32, 64])
    const size = random.between(1, 64) * 512 * random.pick([1, 8, 64])
    const lazyRefcounts = version === 3 && random.chance(0.3)
    const path = join(folder, 'disk.qcow2')
    const sequence = new SnapshotSequence(random, path, { clusterSize, version, size })
    sequence.log.push(
      `version ${version}, clusters of ${clusterSize}, extended ${extendedL2}, ${refcountBits} bits, ${size} bytes, lazy ${lazyRefcounts}`,
    )
    await createImage(path, {
      size,
      clusterSize,
      refcountBits,
      lazyRefcounts,
      extendedL2,
      compat: version === 2 ? '0.10' : '1.1',
    })
    return sequence
  }

  async run(rounds: number): Promise<void> {
    for (let round = 0; round < rounds; round++) {
      if (this.#random.chance(0.25)) await this.#stockRound()
      else await this.#ourRound()
      await this.#judge()
    }
  }

  async #ourRound(): Promise<void> {
    const small = this.#random.chance(0.3) ? { l2CacheBytes: 0, refcountCacheBytes: 0 } : {}
    const cache = this.#random.pick(['writeback', 'writeback', 'none', 'writethrough', 'unsafe'] as const)
    this.log.push(`open, cache ${cache}`)
    this.#image = await openImage(this.#path, { cache: { mode: cache, ...small } })
    try {
      for (let count = this.#random.between(2, 12); count > 0; count--) await this.#operation(this.#image)
      const seen = Buffer.from(await this.#image.read({ offset: 0, length: this.#image.size }))
      mustEqual(seen, this.#content, 'our reading')
    } finally {
      await this.#image.close()
    }
  }

  async #operation(image: DiskImage): Promise<void> {
    const choice = this.#random.integer(100)
    if (choice < 40) await this.#writes(image)
    else if (choice < 50) await this.#discard(image)
    else if (choice < 56) await this.#compressed(image)
    else if (choice < 60) await image.flush()
    else if (choice < 66) await this.#resize(image)
    else if (choice < 80) await this.#create(image)
    else if (choice < 90) await this.#apply(image)
    else await this.#delete(image)
  }

  /** Some at the same time. */
  async #writes(image: DiskImage): Promise<void> {
    const parts = this.#random.between(1, 6)
    const length = Math.floor(this.#content.length / parts)
    const running: Promise<void>[] = []
    for (let part = 0; part < parts && length > 0; part++) {
      const within = this.#random.integer(length)
      const bytes = this.#random.bytes(Math.min(this.#random.between(1, 100_000), length - within))
      const offset = part * length + within
      this.log.push(`write ${offset} ${bytes.length}`)
      this.#content.set(bytes, offset)
      running.push(image.write(bytes, offset))
    }
    await Promise.all(running)
  }

  async #discard(image: DiskImage): Promise<void> {
    const clusters = Math.floor(this.#content.length / this.#clusterSize)
    if (clusters === 0) return
    const first = this.#random.integer(clusters)
    const count = this.#random.between(1, Math.min(8, clusters - first))
    const offset = first * this.#clusterSize
    const length = count * this.#clusterSize
    this.log.push(`discard ${offset} ${length}`)
    this.#content.fill(0, offset, offset + length)
    if (this.#random.chance(0.5)) await image.discard({ offset, length })
    else await image.writeZeroes({ offset, length, unmap: this.#random.chance(0.5) })
  }

  async #compressed(image: DiskImage): Promise<void> {
    const clusters = Math.floor(this.#content.length / this.#clusterSize)
    if (clusters === 0) return
    const offset = this.#random.integer(clusters) * this.#clusterSize
    const bytes = Buffer.alloc(this.#clusterSize, this.#random.bytes(64))
    this.log.push(`compressed ${offset}`)
    this.#content.set(bytes, offset)
    await image.writeCompressed(bytes, offset)
  }

  async #resize(image: DiskImage): Promise<void> {
    const size = this.#random.between(1, 80) * 512 * this.#random.pick([1, 8, 64])
    const isRefused = this.#version === 2 && this.#snapshots.length > 0
    this.log.push(`resize ${this.#content.length} -> ${size}${isRefused ? ', refused' : ''}`)
    const resizing = image.resize(size, { shrink: true })
    if (isRefused) {
      await refused(resizing)
      return
    }
    await resizing
    const resized = Buffer.alloc(size)
    this.#content.copy(resized, 0, 0, size)
    this.#content = resized
  }

  async #create(image: DiskImage): Promise<void> {
    if (this.#snapshots.length >= 8) return
    const name = this.#random.pick(['a', 'b', '1', '2', 'größer', 'with blanks in it'])
    this.log.push(`create ${name}`)
    const { id } = await image.snapshots.create(name)
    this.#snapshots.push({ id, name, content: Buffer.from(this.#content) })
  }

  async #apply(image: DiskImage): Promise<void> {
    const snapshot = this.#anySnapshot()
    if (snapshot === undefined) return
    this.log.push(`apply ${snapshot.id}`)
    await image.snapshots.apply({ id: snapshot.id })
    this.#content = Buffer.from(snapshot.content)
  }

  async #delete(image: DiskImage): Promise<void> {
    const snapshot = this.#anySnapshot()
    if (snapshot === undefined) return
    this.log.push(`delete ${snapshot.id}`)
    await image.snapshots.delete({ id: snapshot.id, name: snapshot.name })
    this.#snapshots = this.#snapshots.filter((other) => other !== snapshot)
  }

  #anySnapshot(): FrozenCopy | undefined {
    return this.#snapshots.length === 0 ? undefined : this.#random.pick(this.#snapshots)
  }

  /** The stock tool does something; it is the judge of what its own operations mean. */
  async #stockRound(): Promise<void> {
    const choice = this.#random.integer(4)
    if (choice === 0) {
      const sectors = this.#content.length / 512
      const at = this.#random.integer(sectors)
      const length = Math.min(this.#random.between(1, 100), sectors - at)
      this.log.push(`stock: write ${at * 512} ${length * 512}`)
      await qemuIo(this.#path, [`write -q -P 7 ${at * 512} ${length * 512}`])
      this.#content.fill(7, at * 512, (at + length) * 512)
    } else if (choice === 1 && this.#snapshots.length < 8) {
      this.log.push('stock: create by-stock')
      await qemuImg('snapshot', '-c', 'by-stock', this.#path)
      const id = /^(\d+) +by-stock/m.exec(
        (await qemuImg('snapshot', '-l', this.#path)).split('\n').reverse().join('\n'),
      )?.[1]
      this.#snapshots.push({ id: id ?? '', name: 'by-stock', content: Buffer.from(this.#content) })
    } else if (choice === 2) {
      const snapshot = this.#anySnapshot()
      if (snapshot === undefined) return
      this.log.push(`stock: apply ${snapshot.id}`)
      await qemuImg('snapshot', '-a', snapshot.id, this.#path)
      this.#content = Buffer.from(snapshot.content)
    } else {
      const snapshot = this.#snapshots[0]
      if (snapshot === undefined) return
      this.log.push(`stock: delete ${snapshot.name}`)
      await qemuImg('snapshot', '-d', snapshot.name, this.#path)
      this.#snapshots = this.#snapshots.filter((other) => other !== snapshot)
    }
  }

  /** Both read the disk, and one of us each snapshot. */
  async #judge(): Promise<void> {
    const problem = await qemuCheck(this.#path)
    if (problem !== '') throw new Error(problem)
    mustEqual(await qemuRead(this.#path), this.#content, 'the stock tool')
    const listed = await qemuImg('snapshot', '-l', this.#path)
    for (const { id, name, content } of this.#snapshots) {
      if (!listed.includes(`\n${id.padEnd(9)} ${name}`))
        throw new Error(`${id} ${name} is not listed:\n${listed}`)
      const view = await openImage(this.#path, { readOnly: true, snapshot: { id } })
      const seen = Buffer.from(await view.read({ offset: 0, length: view.size }))
      await view.close()
      mustEqual(seen, content, `our reading of snapshot ${id}`)
      if (!this.#random.chance(0.3)) continue
      const raw = `${this.#path}.raw`
      await qemuImg('convert', '-l', `snapshot.id=${id}`, '-O', 'raw', this.#path, raw)
      // It shows as many bytes as the disk has now.
      const most = Math.min(content.length, this.#content.length)
      mustEqual(
        (await readFile(raw)).subarray(0, most),
        content.subarray(0, most),
        `the stock tool's of snapshot ${id}`,
      )
    }
  }
}

async function refused(work: Promise<void>): Promise<void> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if ((error as { code?: unknown } | undefined)?.code !== 'ERR_NOT_SUPPORTED') {
    throw new Error('resizing a version 2 image with snapshots must be refused', { cause: error })
  }
}

function mustEqual(seen: Buffer, expected: Buffer, reader: string): void {
  if (seen.equals(expected)) return
  if (seen.length !== expected.length)
    throw new Error(`${reader}: ${seen.length} bytes where ${expected.length} are right`)
  const at = seen.findIndex((byte, index) => byte !== expected[index])
  throw new Error(`${reader}: byte ${at} is ${seen[at]} where ${expected[at]} is right`)
}

test('writes, discards, resizes and operations on snapshots leave what a model says, for us and for the stock tool', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed}, ${sequences} sequences`)
  const folder = await makeFolder(t, { fast: true })
  let next = 0
  const lane = async (): Promise<void> => {
    for (let index = next++; index < sequences; index = next++) {
      const random = new SeededRandom((seed + index) >>> 0)
      const own = join(folder, String(index))
      await mkdir(own)
      let sequence: SnapshotSequence | undefined
      try {
        sequence = await SnapshotSequence.begin(own, random)
        await sequence.run(random.between(2, 6))
      } catch (error) {
        const replay = `QCOW2_SEED=${seed + index} QCOW2_SNAPSHOT_SEQUENCES=1`
        const story = sequence?.log.map((line) => `  ${line}`).join('\n') ?? ''
        throw new Error(`replay: ${replay}\n${String(error)}\n${story}`, { cause: error })
      }
      await rm(own, { recursive: true })
    }
  }
  await Promise.all([lane(), lane()])
  t.pass()
})
