/** The user wants out: Ctrl-C, or a polite kill. */
export class Interruption extends Error {
  override readonly name = 'Interruption'
  readonly signalName: 'SIGINT' | 'SIGTERM' | 'SIGHUP'

  constructor(signalName: 'SIGINT' | 'SIGTERM' | 'SIGHUP') {
    super(`Interrupted by ${signalName}`)
    this.signalName = signalName
  }
}

const signalNames = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Run work that has something to clean up. A signal aborts it, and it rejects with an Interruption when it has cleaned up;
 * a second signal ends the process at once.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const onSignal = (signalName: (typeof signalNames)[number]): void => {
    stopListening()
    controller.abort(new Interruption(signalName))
  }
  // Without a listener of ours a signal does again what it always does.
  const stopListening = (): void => {
    for (const name of signalNames) process.removeListener(name, onSignal)
  }
  for (const name of signalNames) process.on(name, onSignal)
  try {
    return await work(controller.signal)
  } finally {
    stopListening()
  }
}
