/** Watches for promises that fail and that nobody waits for, until it is ended. */
export function unhandledRejections(): { readonly end: () => Promise<string | undefined> } {
  const found: unknown[] = []
  const note = (reason: unknown): void => void found.push(reason)
  process.on('unhandledRejection', note)
  return {
    end: async () => {
      // They are told of when the microtasks of a turn are over.
      await new Promise((resolve) => setImmediate(resolve))
      process.off('unhandledRejection', note)
      return found.length === 0 ? undefined : `an unhandled rejection: ${String(found[0])}`
    },
  }
}
