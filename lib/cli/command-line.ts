import { HelpRequest, UsageError } from './usage-error.js'

/** One option of a verb. A name of one letter is written -x, a longer one --name; both may stand for the same option. */
export type OptionSpec = {
  readonly short?: string
  readonly long?: string
  /** Whether an argument follows: `-f raw`, `-fraw`, `--format raw`, `--format=raw`. */
  readonly takesValue: boolean
  /** By its whole name only: ours, where the stock tool's users may mean another by its beginning. */
  readonly whole?: true
}

export type OptionTable = Readonly<Record<string, OptionSpec>>

/** What was given: for each option its values in order ('' for one without), and the operands. */
export class CommandLine<Name extends string> {
  readonly operands: readonly string[]
  /** All options, as often as they were given and in that order. */
  readonly sequence: readonly { readonly name: string; readonly value: string }[]
  readonly #given: ReadonlyMap<string, readonly string[]>

  constructor(
    given: ReadonlyMap<string, readonly string[]>,
    operands: readonly string[],
    sequence: readonly { readonly name: string; readonly value: string }[] = [],
  ) {
    this.#given = given
    this.operands = operands
    this.sequence = sequence
  }

  has(name: Name): boolean {
    return this.#given.has(name)
  }

  /** The last one counts, as everywhere in getopt's world. */
  value(name: Name): string | undefined {
    return this.#given.get(name)?.at(-1)
  }

  values(name: Name): readonly string[] {
    return this.#given.get(name) ?? []
  }
}

/**
 * GNU getopt_long's rules: options and operands in any order, `-fqcow2`, `-pq`, `--output=json`, unambiguous beginnings of
 * long names, `--` ends the options, and `-` alone is an operand.
 * @throws UsageError   an option that the table lacks, or one that lacks its value
 * @throws HelpRequest  the option called help, where it stands: what follows it does not matter
 */
export function parseCommandLine<Name extends string>(
  table: Readonly<Record<Name, OptionSpec>>,
  argv: readonly string[],
): CommandLine<Name> {
  const given = new Map<string, string[]>()
  const operands: string[] = []
  const sequence: { name: string; value: string }[] = []
  const rest = [...argv]
  const add = (name: string, value: string): void => {
    if (name === 'help') throw new HelpRequest()
    sequence.push({ name, value })
    given.set(name, [...(given.get(name) ?? []), value])
  }
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--') {
      operands.push(...rest)
      break
    }
    if (word.startsWith('--')) addLong(table, word, rest, add)
    else if (word.startsWith('-') && word.length > 1) addShort(table, word, rest, add)
    else operands.push(word)
  }
  return new CommandLine<Name>(given, operands, sequence)
}

type Add = (name: string, value: string) => void

function addLong(table: OptionTable, word: string, rest: string[], add: Add): void {
  const equals = word.indexOf('=')
  const wanted = equals < 0 ? word.slice(2) : word.slice(2, equals)
  const entries = Object.entries(table)
  const exact = entries.filter(([, { long }]) => long === wanted)
  const matches =
    exact.length > 0
      ? exact
      : entries.filter(([, { long, whole }]) => whole !== true && long?.startsWith(wanted) === true)
  const [match] = matches
  if (match === undefined || matches.length > 1) throw unrecognized(word)
  const [name, { takesValue }] = match
  if (!takesValue) {
    if (equals >= 0) throw unrecognized(word)
    add(name, '')
    return
  }
  const value = equals >= 0 ? word.slice(equals + 1) : rest.shift()
  if (value === undefined) throw missingValue(word)
  add(name, value)
}

function addShort(table: OptionTable, word: string, rest: string[], add: Add): void {
  for (let at = 1; at < word.length; at++) {
    const letter = word.charAt(at)
    const entry = Object.entries(table).find(([, { short }]) => short === letter)
    if (entry === undefined) throw unrecognized(word.length === 2 ? word : `-${letter}`)
    const [name, { takesValue }] = entry
    if (!takesValue) {
      add(name, '')
      continue
    }
    const value = at + 1 < word.length ? word.slice(at + 1) : rest.shift()
    if (value === undefined) throw missingValue(`-${letter}`)
    add(name, value)
    return
  }
}

function unrecognized(word: string): UsageError {
  return new UsageError(`unrecognized option '${word}'`, { showHelpHint: true })
}

function missingValue(word: string): UsageError {
  return new UsageError(`missing argument for option '${word}'`, { showHelpHint: true })
}
