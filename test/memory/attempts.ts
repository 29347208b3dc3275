import { readdirSync, readlinkSync } from 'node:fs'
import { constants } from 'node:os'

/** What may be said of a failure for lack of memory, and of what came after it. */
const expected = /^(?:ERR_OUT_OF_MEMORY|ERR_POISONED)$/

export type Outcome = {
  /** What was wrong. */
  readonly problems: string[]
  /** Allocations that failed. */
  readonly failed: number
}

/** What is asked of the addon while its memory fails: every answer is a success or one of the errors that belong to it. */
export class Attempts {
  /** What was neither. */
  readonly problems: string[] = []

  /** @returns whether it succeeded */
  async succeeds(what: string, call: () => unknown): Promise<boolean> {
    return (await this.result(what, call)) !== undefined
  }

  /** @returns what came of it, undefined if nothing did */
  async result<T>(what: string, call: () => T): Promise<{ readonly value: Awaited<T> } | undefined> {
    try {
      return { value: await call() }
    } catch (error) {
      if (!isExpected(error)) this.problems.push(`${what}: ${String(error)}`)
      return undefined
    }
  }
}

function isExpected(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = 'code' in error ? String(error.code) : ''
  // The system had no thread for us.
  const hasNoThread = 'errno' in error && error.errno === constants.errno.EAGAIN
  return expected.test(code) || hasNoThread
}

/** How many descriptors of this process belong to a file. */
export function descriptorsOf(path: string): number {
  return readdirSync('/proc/self/fd').filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`).startsWith(path)
    } catch {
      return false // the one with which the folder was read
    }
  }).length
}

/** Where an opening failed after the file was opened, the closing may still be under way. */
export async function closedUnasked(path: string): Promise<void> {
  for (let turn = 0; turn < 100 && descriptorsOf(path) > 0; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}
