import { pbkdf2 } from 'node:crypto'
import { type HashAlg } from './names.js'
import { limits, saltBytes } from './spec.js'

/** What a key is derived with. */
export type Derivation = {
  readonly hash: HashAlg
  readonly salt: Uint8Array
  readonly iterations: number
}

/** PBKDF2 (RFC 8018) on Node's thread pool. @returns new memory, for its owner to wipe */
export function deriveKey(secret: Uint8Array, from: Derivation, keyBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    pbkdf2(secret, from.salt, from.iterations, keyBytes, from.hash, (error, key) => {
      if (error !== null) reject(error)
      else resolve(key)
    })
  })
}

/** A measurement takes at least this long, else the clock and the thread pool are what is measured. Milliseconds. */
const leastMeasuredMs = 20

/**
 * How many iterations take so long here.
 * @param timeMs  milliseconds; QEMU's iter-time
 */
export async function iterationsFor(timeMs: number, hash: HashAlg, keyBytes: number): Promise<number> {
  const salt = new Uint8Array(saltBytes)
  const secret = new Uint8Array(16)
  let best = 0
  for (let iterations = 16384; ; iterations *= 4) {
    // Twice, and the better one counts: a busy machine must not make for a weak key.
    for (let times = 0; times < 2; times++) {
      const begun = performance.now()
      await deriveKey(secret, { hash, salt, iterations }, keyBytes)
      const tookMs = performance.now() - begun
      best = Math.max(best, iterations / tookMs)
      if (times === 1 && tookMs >= Math.min(leastMeasuredMs, timeMs)) {
        return Math.min(2 ** 32 - 1, Math.max(limits.leastIterations, Math.round(best * timeMs)))
      }
    }
  }
}
