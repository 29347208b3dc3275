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

/**
 * Run commands in turn, all in one process: much cheaper, and as good where it is not the start or the end of a process that matters.
 * @param program  the program or a link to it
 * @param lists  the arguments of each
 */
export async function runCommandsInOne(
  program: string,
  lists: readonly (readonly string[])[],
  folder: string,
): Promise<readonly CliOutcome[]> {
  const host = fileURLToPath(new URL('./programs/commands.js', import.meta.url))
  const { code, stdout, stderr } = await runCommand(
    [process.execPath, host, program, JSON.stringify(lists)],
    folder,
  )
  const outcomes = code === 0 ? (JSON.parse(stdout) as readonly CliOutcome[]) : []
  if (outcomes.length !== lists.length) throw new Error(`exit code ${code}: ${stderr}${stdout}`)
  return outcomes
}
