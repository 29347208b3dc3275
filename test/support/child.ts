import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export type ChildResult = {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/**
 * Run a compiled test program in a Node process of its own.
 * @param program  its URL, as of `new URL('./programs/x.js', import.meta.url)`
 * @param around   a command that runs the process: ['strace', '-f', ...] or ['prlimit', '--fsize=65536']
 */
export function runProgram(
  program: URL,
  args: readonly string[],
  options: { readonly nodeArguments?: readonly string[]; readonly around?: readonly string[] } = {},
): Promise<ChildResult> {
  const { nodeArguments = [], around = [] } = options
  const [command, ...rest] = [...around, process.execPath, ...nodeArguments, fileURLToPath(program), ...args]
  return new Promise((resolve, reject) => {
    const child = spawn(command as string, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
  })
}
