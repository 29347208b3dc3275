import { alignedBytes } from '../native/aligned-memory.js'

/**
 * Do something with every piece, several at a time, each worker with memory of its own. Stops at the first failure.
 * @param pieces   answered one at a time, in order: the workers share it
 * @param memory   bytes of each worker's
 * @param options.requests  pieces in flight
 * @throws the first failure, the signal's reason: when nobody works on a piece any more
 */
export async function runPieces<P>(
  pieces: AsyncGenerator<P, void, undefined>,
  memory: number,
  work: (piece: P, memory: Uint8Array) => Promise<void>,
  options: { readonly requests: number; readonly signal: AbortSignal | undefined },
): Promise<void> {
  let failed = false
  const worker = async (): Promise<void> => {
    const bytes = alignedBytes(memory)
    for (;;) {
      if (failed) return
      options.signal?.throwIfAborted()
      const next = await pieces.next()
      if (next.done === true) return
      await work(next.value, bytes)
    }
  }
  const workers = Array.from({ length: options.requests }, () =>
    worker().catch((error: unknown) => {
      failed = true
      throw error
    }),
  )
  // Nobody may still use its memory or the target when this returns.
  const outcomes = await Promise.allSettled(workers)
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
}
