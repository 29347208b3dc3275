/** How far a long operation has come. */
export type Progress = {
  /** What it is doing, in one word: 'copy', 'check', 'compare', ... */
  readonly phase: string
  readonly bytesDone: number
  readonly bytesTotal: number
}

export type ProgressListener = (progress: Progress) => void

/** What every long operation takes. */
export type LongWork = {
  /** Aborting rejects with the signal's reason and leaves files as they were, or consistent. */
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ProgressListener | undefined
}

/** @throws the signal's reason, if it is aborted */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  signal?.throwIfAborted()
}

/**
 * Wait for `work`, but no longer than until the signal aborts. The work itself goes on; its outcome is then dropped.
 * @throws the signal's reason
 */
export async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work
  signal.throwIfAborted()
  let listener: (() => void) | undefined
  const aborted = new Promise<never>((_, reject) => {
    listener = () => reject(signal.reason as Error)
    signal.addEventListener('abort', listener, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    if (listener) signal.removeEventListener('abort', listener)
  }
}

/** Reports are for people and logs: more than this many of one phase tell nothing new. */
const reportsPerPhase = 1000

/** Passes progress on, throttled to steps of a thousandth; the first and the last report of a phase always get through. */
export class ProgressReporter {
  readonly #listener: ProgressListener | undefined
  readonly #phase: string
  readonly #bytesTotal: number
  #bytesDone = 0
  #nextReport = 0

  constructor(listener: ProgressListener | undefined, phase: string, bytesTotal: number) {
    this.#listener = listener
    this.#phase = phase
    this.#bytesTotal = bytesTotal
    this.#report()
  }

  /** `bytes` more are done. */
  advance(bytes: number): void {
    if (bytes <= 0) return
    this.#bytesDone = Math.min(this.#bytesDone + bytes, this.#bytesTotal)
    if (this.#bytesDone >= this.#nextReport) this.#report()
  }

  /** `bytes` are done by now. */
  reach(bytes: number): void {
    this.advance(bytes - this.#bytesDone)
  }

  #report(): void {
    this.#nextReport = Math.min(this.#bytesDone + this.#bytesTotal / reportsPerPhase, this.#bytesTotal)
    // The last step is reported once: nothing is below infinity afterwards.
    if (this.#bytesDone === this.#bytesTotal) this.#nextReport = Number.POSITIVE_INFINITY
    this.#listener?.({ phase: this.#phase, bytesDone: this.#bytesDone, bytesTotal: this.#bytesTotal })
  }
}
