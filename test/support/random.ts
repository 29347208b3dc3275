/**
 * Numbers for random tests: the same ones for the same seed. The seed is taken from the environment variable
 * TEST_SEED, or by chance; a test that uses one logs it.
 */
export type RandomSource = {
  readonly seed: number
  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number
  pick<T>(choices: readonly T[]): T
  bytes(length: number): Uint8Array
}

export function randomSource(
  seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31)),
): RandomSource {
  let state = seed >>> 0
  // mulberry32: small, and good enough to make up cases.
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
  const below = (limit: number): number => Math.floor((next() / 2 ** 32) * limit)
  return {
    seed,
    below,
    pick(choices) {
      const choice = choices[below(choices.length)]
      if (choice === undefined) throw new Error('nothing to choose from')
      return choice
    },
    bytes(length) {
      return Uint8Array.from({ length }, () => below(256))
    },
  }
}
