import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Task } from './worker.js'

const worker = fileURLToPath(new URL('worker.js', import.meta.url))

/** A process of ours that does one task after the other, as a program that has been running for a while. */
export class OurProcess implements AsyncDisposable {
  readonly #child: ChildProcess

  constructor() {
    this.#child = fork(worker, { execArgv: [], serialization: 'advanced' })
  }

  /** @return what the task cost, in its unit */
  async run(task: Task): Promise<number> {
    this.#child.send(task)
    const ended = new AbortController()
    const [answer] = (await Promise.race([
      once(this.#child, 'message', { signal: ended.signal }),
      once(this.#child, 'exit', { signal: ended.signal }).then(([status]) => [
        { error: `the process that measures ended with status ${String(status)}` },
      ]),
    ]).finally(() => ended.abort())) as [{ cost: number } | { error: string }]
    if ('error' in answer) throw new Error(`${task.work}: ${answer.error}`)
    return answer.cost
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return
    this.#child.disconnect()
    await once(this.#child, 'exit')
  }
}

/** One task in a process that ends with it: what it takes of memory is its own. */
export async function runAlone(task: Task): Promise<number> {
  await using process = new OurProcess()
  return await process.run(task)
}
