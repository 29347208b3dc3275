import { assert } from '../../lib/base/assert.js'

/** Numbers that look random and are the same for the same seed on every machine. */
export class SeededRandom {
  #state: number

  /** @param seed  an integer, 0 to 2^32 - 1 */
  constructor(seed: number) {
    this.#state = seed >>> 0
    // Neighbouring seeds begin alike otherwise.
    for (let round = 0; round < 4; round++) this.#next()
  }

  /** An integer, 0 <= result < below. */
  integer(below: number): number {
    return Math.floor((this.#next() / 2 ** 32) * below)
  }

  /** An integer, first <= result <= last. */
  between(first: number, last: number): number {
    return first + this.integer(last - first + 1)
  }

  chance(probability: number): boolean {
    return this.#next() < probability * 2 ** 32
  }

  pick<const T>(choices: readonly T[]): T {
    const choice = choices[this.integer(choices.length)]
    assert(choice !== undefined, 'there is something to pick from')
    return choice
  }

  /** Numbers of their own for something that runs at the same time. */
  fork(): SeededRandom {
    return new SeededRandom(this.#next())
  }

  /** Bytes none of which is zero: a zero that is read later comes from elsewhere. */
  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let at = 0; at < length; at += 4) {
      const word = this.#next() | 0x01010101
      for (let index = 0; index < 4 && at + index < length; index++) bytes[at + index] = word >>> (8 * index)
    }
    return bytes
  }

  /** mulberry32: 32 bits of state, good enough to choose tests by. */
  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
}

/** The seed of a run: from the environment, else from the clock. */
export function seedOfRun(): number {
  const given = process.env['QCOW2_SEED']
  return given === undefined ? Date.now() % 2 ** 31 : Number(given)
}

/** A count that the environment can change: few for every day, many for a full run. */
export function countOfRun(variable: string, everyDay: number): number {
  const given = process.env[variable]
  return given === undefined ? everyDay : Number(given)
}
