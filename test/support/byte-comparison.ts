// Loaded before each test file (package.json, "ava"). What compares values for `t.deepEqual` makes a list of the keys of each, and a
// byte array has one for every byte: two seconds for a megabyte. Equal bytes are seen at once here; of others it says what it always says.
import { createRequire } from 'node:module'

type Comparison = {
  compare: (actual: unknown, expected: unknown, ...rest: readonly unknown[]) => { readonly pass: boolean }
}

const requireOfAva = createRequire(createRequire(import.meta.url).resolve('ava'))
const comparison = requireOfAva('concordance') as Comparison
const { compare } = comparison

comparison.compare = (actual, expected, ...rest) =>
  areEqualBytes(actual, expected) ? { pass: true } : compare(actual, expected, ...rest)

/** Two byte arrays of one kind that hold the same: a Buffer is no Uint8Array for `t.deepEqual`. */
function areEqualBytes(actual: unknown, expected: unknown): boolean {
  return (
    actual instanceof Uint8Array &&
    expected instanceof Uint8Array &&
    Object.getPrototypeOf(actual) === Object.getPrototypeOf(expected) &&
    Buffer.compare(actual, expected) === 0
  )
}
