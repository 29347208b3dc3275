import { writeSync } from 'node:fs'

/**
 * Text for standard output. Written at once, and before any later message on standard error: people join the two with 2>&1.
 * The descriptors are used directly, as the stream objects of Node cost milliseconds to set up.
 */
export function print(text: string): void {
  writeAll(1, text)
}

/** Text for standard error, as it is. */
export function printError(text: string): void {
  writeAll(2, text)
}

function writeAll(descriptor: number, text: string): void {
  let rest = Buffer.from(text)
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(descriptor, rest))
    } catch (error) {
      // The reader has gone away. As in the stock tool, the work goes on, and its outcome is the exit code.
      if ((error as NodeJS.ErrnoException).code === 'EPIPE') return
      // A pipe that somebody else has made non-blocking, and that is full just now.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    }
  }
}
