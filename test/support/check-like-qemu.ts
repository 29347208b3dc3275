import { checkExitCode, type CheckOptions, checkQcow2, checkStatistics } from '../../lib/qcow2/check.js'
import { Qcow2Error } from '../../lib/base/errors.js'
import { FileBackend } from './file-backend.js'
import { run } from './qemu.js'

/** What a check says, in a form that two programs' outcomes can be compared in. */
export type Verdict = {
  readonly exit: number
  readonly corruptions: number
  readonly leaks: number
  readonly checkErrors: number
  readonly imageEndOffset: number
  readonly statistics: string | undefined
  /** Findings, sorted. */
  readonly lines: readonly string[]
}

const nothing = { corruptions: 0, leaks: 0, checkErrors: 0, imageEndOffset: 0, statistics: undefined }

/** Check, or repair, a file by our own means. @returns the verdict; of a check that fails altogether the exit code alone */
export async function ourCheck(
  file: string,
  options: CheckOptions = {},
): Promise<Verdict & { error?: unknown }> {
  const backend = new FileBackend(file, { readOnly: options.repair === undefined })
  const lines: string[] = []
  try {
    const result = await checkQcow2(backend, { ...options, onFinding: ({ text }) => lines.push(text) })
    const { corruptions, leaks, checkErrors, imageEndOffset } = result
    return {
      ...{ exit: checkExitCode(result), corruptions, leaks, checkErrors, imageEndOffset },
      statistics: checkStatistics(result),
      lines: lines.sort(),
    }
  } catch (error) {
    if (!(error instanceof Qcow2Error)) throw error
    return { exit: 1, ...nothing, lines: [], error }
  } finally {
    await backend.close()
  }
}

/** The stock tool's verdict. */
export async function theirCheck(file: string, ...options: string[]): Promise<Verdict> {
  // There are damaged images which it repairs for ever: then its exit code is 124.
  const { code, stdout, stderr } = await run('timeout', ['60', 'qemu-img', 'check', ...options, file])
  const number = (pattern: RegExp): number => Number(pattern.exec(stdout)?.[1] ?? 0)
  // what only says that the node was found corrupt, and the summary, are no findings
  const noise = /^$|^qemu-img: Check failed|further non-fatal corruption/
  return {
    exit: code,
    corruptions: number(/^(\d+) errors were/m),
    leaks: number(/^(\d+) leaked/m),
    checkErrors: number(/^(\d+) internal/m),
    imageEndOffset: number(/end offset: (\d+)/),
    statistics: /^\d+\/\d+ = .*$/m.exec(stdout)?.[0],
    lines: stderr
      .split('\n')
      .filter((line) => !noise.test(line))
      .sort(),
  }
}
