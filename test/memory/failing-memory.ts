import { closeSync, openSync, readSync, writeSync } from 'node:fs'

/** Where in the file what stands: Control in native/test/failing_memory.cc. Numbers of 64 bits. */
const failAt = 0
const forEver = 1
const counted = 2
const failed = 3
const length = 4

/** The environment variable by which the addon, in its variant `faulty`, finds the file. */
export const variable = 'QCOW2_FAILING_MEMORY'

/** Lets an allocation of the addon's own code fail, or the start of one of its threads: which, stands in a file that it has mapped. */
export class FailingMemory implements Disposable {
  readonly #descriptor: number

  /** @param path  of the file; before the addon is loaded it must be long enough */
  constructor(path: string) {
    this.#descriptor = openSync(path, 'r+')
  }

  /** Before the addon is loaded. */
  static create(path: string): FailingMemory {
    closeSync(openSync(path, 'w'))
    const memory = new FailingMemory(path)
    memory.relent()
    return memory
  }

  /** Let the n-th allocation from now on fail. @param options.forEver  and all after it */
  failAt(n: number, options: { readonly forEver: boolean }): void {
    const numbers = new BigInt64Array(length)
    numbers[failAt] = BigInt(n)
    numbers[forEver] = options.forEver ? 1n : 0n
    writeSync(this.#descriptor, numbers, 0, numbers.byteLength, 0)
  }

  /** Nothing fails any more. @returns how many allocations there were since `failAt`, and how many of them failed */
  relent(): { readonly counted: number; readonly failed: number } {
    const numbers = new BigInt64Array(length)
    readSync(this.#descriptor, numbers, 0, numbers.byteLength, 0)
    const result = { counted: Number(numbers[counted]), failed: Number(numbers[failed]) }
    writeSync(this.#descriptor, new BigInt64Array(length), 0, numbers.byteLength, 0)
    return result
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor)
  }
}
