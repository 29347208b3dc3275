import type { ProgressListener } from './abort.js'
import { invalid, outOfRange } from './errors.js'

/** Turns what a caller gave for an option into the value used inside, or throws. */
export type OptionCheck<T> = (value: unknown, name: string) => T

type Schema = Readonly<Record<string, OptionCheck<unknown>>>

/** The options as checked; what was not given, or given as undefined, is absent. */
export type Checked<S extends Schema> = { readonly [K in keyof S]?: ReturnType<S[K]> }

/**
 * Check an options object against the options that exist.
 * @param where  the function that was called, for messages
 * @param given  what the caller passed; undefined counts as {}
 * @throws TypeError ERR_INVALID_OPTION  an unknown option (with a suggestion), or a value of the wrong kind
 * @throws RangeError ERR_OUT_OF_RANGE   a number that is too small or too large
 */
export function checkOptions<S extends Schema>(where: string, given: unknown, schema: S): Checked<S> {
  if (given === undefined) return {}
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw invalid(`${where}: options must be an object, not ${describe(given)}`, 'ERR_INVALID_OPTION')
  }
  const checked: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(given)) {
    const check = Object.hasOwn(schema, name) ? schema[name] : undefined
    if (check === undefined) {
      throw invalid(
        `${where}: unknown option "${name}"${suggestion(name, Object.keys(schema))}`,
        'ERR_INVALID_OPTION',
      )
    }
    if (value !== undefined) checked[name] = check(value, `${where}: option "${name}"`)
  }
  return checked as Checked<S>
}

/** An option that the caller cannot leave out. */
export function required<T>(where: string, name: string, value: T | undefined): T {
  if (value === undefined) throw invalid(`${where}: option "${name}" is required`, 'ERR_INVALID_OPTION')
  return value
}

export const booleanOption: OptionCheck<boolean> = (value, name) => {
  if (typeof value !== 'boolean') throw wrongKind(name, 'true or false', value)
  return value
}

/** A string that is not empty and has no NUL, which no path and no name in an image can hold. */
export const stringOption: OptionCheck<string> = (value, name) => {
  if (typeof value !== 'string') throw wrongKind(name, 'a string', value)
  if (value === '' || value.includes('\0')) {
    throw invalid(`${name} must not be empty or contain NUL`, 'ERR_INVALID_OPTION')
  }
  return value
}

/** A whole number within the bounds, both included. */
export function integerOption(bounds: { min: number; max?: number }): OptionCheck<number> {
  const max = bounds.max ?? Number.MAX_SAFE_INTEGER
  return (value, name) => {
    if (typeof value !== 'number') throw wrongKind(name, 'a number', value)
    if (!Number.isSafeInteger(value) || value < bounds.min || value > max) {
      throw outOfRange(`${name} must be a whole number from ${bounds.min} to ${max}, not ${value}`)
    }
    return value
  }
}

/** A power of two within the bounds, both included. */
export function powerOfTwoOption(bounds: { min: number; max: number }): OptionCheck<number> {
  const integer = integerOption(bounds)
  return (value, name) => {
    const number = integer(value, name)
    if (!Number.isInteger(Math.log2(number))) {
      throw outOfRange(`${name} must be a power of two from ${bounds.min} to ${bounds.max}, not ${number}`)
    }
    return number
  }
}

/** One of a few names. */
export function enumOption<const T extends string>(names: readonly T[]): OptionCheck<T> {
  return (value, name) => {
    const found = names.find((known) => known === value)
    if (found !== undefined) return found
    const hint = typeof value === 'string' ? suggestion(value, names) : ''
    const choices = names.map((known) => `'${known}'`).join(', ')
    throw invalid(`${name} must be one of ${choices}, not ${describe(value)}${hint}`, 'ERR_INVALID_OPTION')
  }
}

/** A function; what it takes and returns is its caller's business. */
export function functionOption<F extends (...args: never[]) => unknown>(): OptionCheck<F> {
  return (value, name) => {
    if (typeof value !== 'function') throw wrongKind(name, 'a function', value)
    return value as F
  }
}

export const signalOption: OptionCheck<AbortSignal> = (value, name) => {
  if (!(value instanceof AbortSignal)) throw wrongKind(name, 'an AbortSignal', value)
  return value
}

/** What every long operation takes: see LongWork. */
export const longWorkSchema = { signal: signalOption, onProgress: functionOption<ProgressListener>() }

/** The positional file name of an operation. */
export function checkPath(where: string, path: unknown): string {
  return stringOption(path, `${where}: the path`)
}

function wrongKind(name: string, wanted: string, value: unknown): TypeError {
  return invalid(`${name} must be ${wanted}, not ${describe(value)}`, 'ERR_INVALID_OPTION')
}

function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  return typeof value === 'undefined' ? 'undefined' : `a value of type ${typeof value}`
}

/** `; did you mean "x"?` for the nearest name, if one is near enough to be what was meant. */
export function suggestion(given: string, known: readonly string[]): string {
  let best: string | undefined
  // Two slips at most, and fewer in short names, where everything is near everything.
  let bestDistance = Math.min(2, Math.floor(given.length / 3)) + 1
  for (const name of known) {
    const distance = editDistance(given.toLowerCase(), name.toLowerCase())
    if (distance < bestDistance) {
      best = name
      bestDistance = distance
    }
  }
  return best === undefined ? '' : `; did you mean "${best}"?`
}

/** Levenshtein: how many letters to insert, delete or replace. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const replaced = at(previous, column - 1) + (a[row - 1] === b[column - 1] ? 0 : 1)
      current.push(Math.min(replaced, at(previous, column) + 1, at(current, column - 1) + 1))
    }
    previous = current
  }
  return at(previous, b.length)
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY
}
