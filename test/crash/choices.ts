import type { SeededRandom } from '../support/seeded-random.js'
import { absent, type DiskStates, present, torn } from './disk-states.js'

/** Up to so many combinations all are looked at. */
const mostExhaustive = 4096

/** Subsets of this many kinds of clusters, at most. */
const mostClasses = 7

export type ChoiceLimits = {
  /** Of sampled states at one crash point. */
  readonly perPoint: number
  /** Combinations up to which all are looked at. */
  readonly exhaustive: number
}

export const fullLimits: ChoiceLimits = { perPoint: 400, exhaustive: mostExhaustive }

/**
 * Put a crash point's disk in one state after the other: all of them where they are few, otherwise the telling ones first and then random
 * ones. `visit` returns true to end it.
 * @param classOf  the kind of what an atom writes to
 * @returns whether it was all of them
 */
export function eachChoice(
  states: DiskStates,
  limits: ChoiceLimits,
  random: SeededRandom,
  classOf: (atom: number) => string,
  visit: () => boolean,
): boolean {
  if (states.count <= limits.exhaustive) {
    eachInGrayOrder(states, random, visit)
    return true
  }
  let left = limits.perPoint
  const once = (): boolean => visit() || --left <= 0
  for (const choice of sampled(states, random, classOf)) {
    choice()
    if (once()) break
  }
  return false
}

/** A reflected Gray code of mixed radix: one atom changes from one state to the next. */
function eachInGrayOrder(states: DiskStates, random: SeededRandom, visit: () => boolean): void {
  const { atoms } = states
  const direction = new Int8Array(atoms.length).fill(1)
  for (;;) {
    for (const longest of states.lengthVaries ? [false, true] : [false]) {
      states.longest = longest
      if (visit()) return
    }
    let atom = 0
    for (; atom < atoms.length; atom++) {
      const next = (states.chosen[atom] ?? 0) + (direction[atom] ?? 1)
      if (next < 0 || next >= (atoms[atom]?.radix ?? 2)) {
        direction[atom] = -(direction[atom] ?? 1)
        continue
      }
      if (next === torn) tearAtRandom(states, atom, random)
      states.choose(atom, next)
      break
    }
    if (atom === atoms.length) return
  }
}

function* sampled(
  states: DiskStates,
  random: SeededRandom,
  classOf: (atom: number) => string,
): Generator<() => void> {
  const { atoms } = states
  const set = (choiceOf: (atom: number) => number): void => {
    for (let atom = 0; atom < atoms.length; atom++) states.choose(atom, choiceOf(atom))
    states.longest = states.lengthVaries && random.chance(0.5)
  }
  yield () => set(() => present)
  yield () => set(() => absent)
  for (let one = 0; one < atoms.length; one++) {
    yield () => set((atom) => (atom === one ? absent : present))
    yield () => set((atom) => (atom === one ? present : absent))
  }
  yield* byClass(states, set, classOf)
  for (let count = 1; count < atoms.length; count++) {
    yield () => set((atom) => (atom < count ? present : absent))
    yield () => set((atom) => (atom < count ? absent : present))
  }
  for (let pair = 0; pair < atoms.length; pair++) {
    const one = random.integer(atoms.length)
    const other = random.integer(atoms.length)
    yield () => set((atom) => (atom === one || atom === other ? absent : present))
  }
  for (;;) {
    const probability = random.pick([0.1, 0.5, 0.5, 0.9])
    const tears = random.chance(0.3)
    yield () =>
      set((atom) => {
        if (!random.chance(probability)) return absent
        if (!tears || atoms[atom]?.radix !== 3 || random.chance(0.5)) return present
        tearAtRandom(states, atom, random)
        return torn
      })
  }
}

function* byClass(
  states: DiskStates,
  set: (choiceOf: (atom: number) => number) => void,
  classOf: (atom: number) => string,
): Generator<() => void> {
  const names = states.atoms.map((_, atom) => classOf(atom))
  const kinds = [...new Set(names)].slice(0, mostClasses)
  for (let subset = 1; subset < 2 ** kinds.length - 1; subset++) {
    yield () => set((atom) => ((subset >> kinds.indexOf(names[atom] ?? '')) & 1 ? present : absent))
  }
}

function tearAtRandom(states: DiskStates, atom: number, random: SeededRandom): void {
  const sectors = states.atoms[atom]?.places.length ?? 0
  // One is surely there, and one surely not.
  const there = random.integer(sectors)
  const missing = (there + 1 + random.integer(sectors - 1)) % sectors
  const isFront = random.chance(0.3)
  const front = Math.min(there, missing)
  states.tear(atom, (step) => {
    if (isFront) return step <= front
    return step === there || (step !== missing && random.chance(0.5))
  })
}
