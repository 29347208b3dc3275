/** A broken assertion is a mistake of this library, never of an image, a disk or a caller. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError'
}

/**
 * State what must hold at this point.
 * @throws AssertionError  it does not: a bug here
 */
export function assert(condition: boolean, what: string): asserts condition {
  if (!condition) throw new AssertionError(`broken invariant, please report this: ${what}`)
}
