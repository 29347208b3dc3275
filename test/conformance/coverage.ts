import type { SeededRandom } from '../support/seeded-random.js'

/** What there is to choose from, by name. */
export type Choices = Readonly<Record<string, readonly (string | number)[]>>
export type Row = Readonly<Record<string, string | number>>

/** Whether what has been chosen so far may stand together; what is missing does not count. */
export type MayBe = (partial: Row) => boolean

type Tuple = { readonly names: readonly string[]; readonly values: readonly (string | number)[] }

const keyOf = ({ names, values }: Tuple): string =>
  names.map((name, index) => `${name}=${values[index]}`).join(',')

function* namesOf(names: readonly string[], strength: number): Generator<readonly string[]> {
  if (strength === 0) yield []
  for (let index = 0; strength > 0 && index < names.length; index++) {
    for (const others of namesOf(names.slice(index + 1), strength - 1))
      yield [names[index] as string, ...others]
  }
}

function* tuplesOf(choices: Choices, names: readonly string[]): Generator<Tuple> {
  const [first, ...others] = names
  if (first === undefined) {
    yield { names: [], values: [] }
    return
  }
  for (const value of choices[first] ?? []) {
    for (const rest of tuplesOf(choices, others)) {
      yield { names: [first, ...rest.names], values: [value, ...rest.values] }
    }
  }
}

const rowOf = ({ names, values }: Tuple): Row =>
  Object.fromEntries(names.map((name, index) => [name, values[index] as string | number]))

/**
 * Rows among which every combination of `strength` choices occurs that may stand together. Greedy: not the fewest rows, but few.
 * @param strength  2: all pairs
 */
export function coveringRows(choices: Choices, mayBe: MayBe, strength: number, random: SeededRandom): Row[] {
  const names = Object.keys(choices)
  const groups = [...namesOf(names, strength)]
  const missing = new Map<string, Tuple>()
  for (const group of groups) {
    for (const tuple of tuplesOf(choices, group)) {
      if (mayBe(rowOf(tuple))) missing.set(keyOf(tuple), tuple)
    }
  }
  const rows: Row[] = []
  for (const tuple of missing.values()) {
    const row = complete(rowOf(tuple))
    rows.push(row)
    for (const group of groups) missing.delete(keyIn(row, group))
  }
  return rows

  /** Fill in what is missing, each time with what covers most that is not covered yet. */
  function complete(start: Row): Row {
    let row = start
    const open = names.filter((name) => !(name in row))
    while (open.length > 0) {
      const [name] = open.splice(random.integer(open.length), 1) as [string]
      let best: Row | undefined
      let most = -1
      for (const value of choices[name] ?? []) {
        const tried = { ...row, [name]: value }
        if (!mayBe(tried)) continue
        const covered = coveredBy(tried, name) + random.integer(1000) / 1000
        if (covered > most) [best, most] = [tried, covered]
      }
      if (best === undefined) throw new Error(`nothing may stand for ${name} in ${JSON.stringify(row)}`)
      row = best
    }
    return row
  }

  function coveredBy(row: Row, name: string): number {
    let covered = 0
    for (const group of groups) {
      if (group.includes(name) && group.every((one) => one in row) && missing.has(keyIn(row, group)))
        covered++
    }
    return covered
  }
}

const keyIn = (row: Row, names: readonly string[]): string =>
  names.map((name) => `${name}=${row[name]}`).join(',')
