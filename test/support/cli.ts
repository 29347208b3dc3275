import { execFile } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The program as it is shipped, one file and a file for each verb. */
export const cliPath = fileURLToPath(new URL('../../lib/cli/main.cjs', import.meta.url))

/** What it is made from. */
export const cliModulePath = fileURLToPath(new URL('../../lib/cli/main.js', import.meta.url))

const isStale = !existsSync(cliPath) || statSync(cliPath).mtimeMs < statSync(cliModulePath).mtimeMs
if (isStale) throw new Error('dist/lib/cli/main.cjs is older than its modules: npm run build')

export type CliOutcome = {
  /** Exit code; 128 and more stands for a signal, as in a shell. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * Run a command to its end.
 * @param words  program and arguments
 * @param folder  where it runs
 */
export function runCommand(words: readonly string[], folder: string): Promise<CliOutcome> {
  const [program = '', ...args] = words
  return new Promise((resolve, reject) => {
    execFile(
      program,
      args,
      { cwd: folder, maxBuffer: 64 * 1024 * 1024, env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' } },
      (error, stdout, stderr) => {
        if (error === null) resolve({ code: 0, stdout, stderr })
        else if (typeof error.code === 'number') resolve({ code: error.code, stdout, stderr })
        else if (error.signal) resolve({ code: error.signal === 'SIGINT' ? 130 : 143, stdout, stderr })
        else reject(new Error(`${program} cannot be run`, { cause: error }))
      },
    )
  })
}

/** Run `qcow2 ...` in a folder. */
export function runCli(args: readonly string[], folder: string): Promise<CliOutcome> {
  return runCommand([process.execPath, cliPath, ...args], folder)
}
