import { Qcow2Error } from '../../lib/base/errors.js'
import type { DiskImage } from '../../lib/image/disk-image.js'
import { openImage } from '../../lib/image/open.js'
import { checkQcow2 } from '../../lib/qcow2/check.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import type { SeededRandom } from '../support/seeded-random.js'
import { within } from '../crash/workload.js'

/** What became of one unsound image. */
export type Fate = {
  /** By what was tried: 'ok', or the code of the error. */
  readonly outcomes: Readonly<Record<Attempt, string>>
  readonly problem: string | undefined
}
export type Attempt = 'check' | 'read' | 'write' | 'repair'

/** Most of a disk that is read: what an image says of its size may be anything. */
const mostRead = 4 * 1024 * 1024
const pieceBytes = 256 * 1024

/** Most runs of a disk that are listed: sizes of exabytes have millions. */
const mostExtents = 2000

/** A trial that has not ended by then hangs. Turns of the event loop. */
const mostTurns = 400_000

/** Try all that a user may do to an image: nothing may happen but what the format allows, or an error that says what is wrong. */
export async function tryOut(bytes: Uint8Array, random: SeededRandom): Promise<Fate> {
  const trial = new Trial(bytes, random)
  try {
    await within(mostTurns, trial.all(), 'an attempt')
  } catch (error) {
    trial.problem ??= told(error)
  }
  return { outcomes: trial.outcomes, problem: trial.problem }
}

class Trial {
  readonly outcomes: Record<Attempt, string> = { check: '', read: '', write: '', repair: '' }
  problem: string | undefined
  readonly #bytes: Uint8Array
  readonly #random: SeededRandom

  constructor(bytes: Uint8Array, random: SeededRandom) {
    this.#bytes = bytes
    this.#random = random
  }

  async all(): Promise<void> {
    let before: Verdict | undefined
    this.outcomes.check = await outcomeOf(async () => {
      before = await this.#readOnly(this.#image(), (backend) => check(backend))
    })
    this.outcomes.read = await outcomeOf(() => this.#readAll())
    await this.#write(before)
    await this.#repair(before)
  }

  /** A file of one's own. */
  #image(): SparseBytes {
    return SparseBytes.from(this.#bytes)
  }

  /** @returns undefined where a check is not possible */
  async #check(contents: SparseBytes): Promise<Verdict | undefined> {
    let result: Verdict | undefined
    await outcomeOf(async () => {
      result = await this.#readOnly(contents, (backend) => check(backend))
    })
    return result
  }

  async #readAll(): Promise<void> {
    await this.#readOnly(this.#image(), async (backend) => {
      const image = await open(backend, true)
      try {
        const length = Math.min(image.size, mostRead)
        const piece = new Uint8Array(pieceBytes)
        let failure: Error | undefined
        for (let offset = 0; offset < length; offset += pieceBytes) {
          // Whatever is wrong with one piece, the next may have something else.
          await image
            .readInto(piece.subarray(0, Math.min(pieceBytes, length - offset)), offset)
            .catch((error: unknown) => (failure ??= asError(error)))
        }
        let extents = 0
        for await (const { length: bytes } of image.extents()) {
          if (bytes <= 0) throw new Error('a run of no bytes')
          if (++extents >= mostExtents) break
        }
        if (failure !== undefined) throw failure
      } finally {
        await image.close()
      }
    })
  }

  /** Whoever only looks leaves the file as it is. */
  async #readOnly<T>(contents: SparseBytes, look: (backend: MemoryBackend) => Promise<T>): Promise<T> {
    const backend = new MemoryBackend({ contents, readOnly: true, record: true })
    try {
      return await look(backend)
    } finally {
      const changes = backend.log.filter(({ type }) => type === 'NSUB')
      if (changes.length > 0) this.problem ??= 'a file was changed that was only looked at'
    }
  }

  /** Writing makes nothing worse, and what was sound stays so. */
  async #write(before: Verdict | undefined): Promise<void> {
    const backend = new MemoryBackend({ contents: this.#image() })
    this.outcomes.write = await outcomeOf(() => this.#useAsGuest(backend))
    const after = await this.#check(backend.contents)
    if (before === undefined || before.checkErrors > 0 || before.lost > 0) return
    if (after === undefined) this.problem ??= 'after writing a check is not possible any more'
    else if (after.harm > before.harm) {
      this.problem ??= `writing made ${after.corruptions} corruptions out of ${before.corruptions}`
    }
  }

  async #useAsGuest(backend: MemoryBackend): Promise<void> {
    const image = await open(backend, false)
    let failure: Error | undefined
    const attempt = async (work: () => Promise<unknown>): Promise<void> => {
      await work().catch((error: unknown) => (failure ??= asError(error)))
    }
    try {
      const sectors = Math.floor(Math.min(image.size, mostRead) / 512)
      for (let count = 0; sectors > 0 && count < 12; count++) {
        const first = this.#random.integer(sectors)
        const range = {
          offset: first * 512,
          length: this.#random.between(1, Math.min(64, sectors - first)) * 512,
        }
        const kind = this.#random.integer(6)
        if (kind === 0) await attempt(() => image.discard(range))
        else if (kind === 1) await attempt(() => image.writeZeroes({ ...range, unmap: true }))
        else if (kind === 2) await attempt(() => image.flush())
        else await attempt(() => image.write(new Uint8Array(range.length).fill(0xab), range.offset))
      }
      await attempt(() => image.flush())
    } finally {
      await attempt(() => image.close())
    }
    if (failure !== undefined) throw failure
  }

  /** A repair makes nothing worse, whatever it says, and leaves nothing for the next one. */
  async #repair(before: Verdict | undefined): Promise<void> {
    const contents = this.#image()
    this.outcomes.repair = await outcomeOf(() => repair(contents))
    const after = await this.#check(contents)
    if (before !== undefined && after === undefined) {
      this.problem ??= 'after a repair a check is not possible any more'
    }
    if (before === undefined || after === undefined) return
    if (after.harm > before.harm) {
      this.problem ??= `a repair made ${after.corruptions} corruptions out of ${before.corruptions}`
    }
    if (this.outcomes.repair === 'ok' && (await repair(contents)) > 0) {
      this.problem ??= 'a second repair changes something'
    }
  }
}

/** @returns how many changes it made to the file */
async function repair(contents: SparseBytes): Promise<number> {
  const backend = new MemoryBackend({ contents, record: true })
  try {
    await checkQcow2(backend, { repair: 'all' })
  } finally {
    await backend.close()
  }
  return backend.log.filter(({ type }) => type === 'NSUB').length
}

/** What a check has found. */
type Verdict = {
  readonly corruptions: number
  readonly checkErrors: number
  /**
   * Corruptions that may lose data: all but COPIED flags that do not follow the counts. Counts that were too low are raised, and where nobody can
   * tell what a table is, the flags in it stay as they are.
   */
  readonly harm: number
  /** Clusters that have more owners than their counts say: what one of them does to them the others suffer, and nobody can know. */
  readonly lost: number
}

async function check(backend: MemoryBackend): Promise<Verdict> {
  let flags = 0
  let lost = 0
  const { corruptions, checkErrors } = await checkQcow2(backend, {
    onFinding: ({ kind }) => {
      if (kind === 'copied-flag') flags++
      if (kind === 'refcount') lost++
    },
  })
  return { corruptions, checkErrors, harm: corruptions - flags, lost }
}

/** Whatever an image names is this disk, of which nothing else is opened. */
async function open(backend: MemoryBackend, readOnly: boolean): Promise<DiskImage> {
  return await openImage(backend, {
    format: 'qcow2',
    readOnly,
    backing: () =>
      openImage(new MemoryBackend({ contents: SparseBytes.from(new Uint8Array(4096).fill(1)) }), {
        format: 'raw',
      }),
  })
}

/** @returns 'ok', or the code of the error. @throws what is no error for a user */
async function outcomeOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work()
    return 'ok'
  } catch (error) {
    if (error instanceof Qcow2Error) return error.code
    if (error instanceof RangeError && 'code' in error && error.code === 'ERR_OUT_OF_RANGE') return error.code
    throw error
  }
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)))

function told(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
