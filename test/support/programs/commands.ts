// Run the command line program again and again in one process, as most of a short command is the start of Node:
//   node commands.js PROGRAM '[["info", "a.qcow2"], ...]'
// Prints the outcomes as JSON. The program is evaluated anew for each; its verbs, which have no state, are loaded once.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import type { CliOutcome } from '../cli.js'

const require = createRequire(import.meta.url)
const [node = '', , program = '', lists = '[]'] = process.argv
const waiting = JSON.parse(lists) as string[][]
const outcomes: CliOutcome[] = []

/** What has been written to standard output and standard error by the one that runs. */
const written: Record<1 | 2, Uint8Array[]> = { 1: [], 2: [] }
const writeSync = fs.writeSync
fs.writeSync = (descriptor: number, bytes: unknown): number => {
  if ((descriptor !== 1 && descriptor !== 2) || !(bytes instanceof Uint8Array))
    throw new Error('the program writes whole buffers, to its standard streams only')
  written[descriptor].push(Uint8Array.from(bytes))
  return bytes.length
}

/** The text written to a stream; none is left. */
function take(descriptor: 1 | 2): string {
  return Buffer.concat(written[descriptor].splice(0)).toString()
}

function startNext(words: readonly string[]): void {
  process.argv = [node, program, ...words]
  process.exitCode = 0
  const path = require.resolve(program)
  // Node takes the real path for the program's own, too.
  Reflect.deleteProperty(require.cache, path)
  setImmediate(() => void require(path))
}

let isRunning = false
// A program ends when nothing is left to do.
process.on('beforeExit', () => {
  if (isRunning) outcomes.push({ code: Number(process.exitCode), stdout: take(1), stderr: take(2) })
  const words = waiting.shift()
  isRunning = words !== undefined
  if (words !== undefined) startNext(words)
})
process.on('exit', () => {
  process.exitCode = waiting.length === 0 && !isRunning ? 0 : 1
  for (let rest = Buffer.from(JSON.stringify(outcomes)); rest.length > 0;)
    rest = rest.subarray(writeSync(1, rest))
})
