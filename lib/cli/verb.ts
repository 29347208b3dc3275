import { passphraseRequired } from '../base/errors.js'
import type { OptionSpec } from './command-line.js'
import type { ImageName } from './image-name.js'
import { printError } from './output.js'
import { UsageError } from './usage-error.js'

/** What a verb is told beside its arguments. */
export type VerbContext = {
  /** The name that the program was called by: the prefix of its messages. */
  readonly program: string
}

/** @returns the exit code */
export type Verb = (argv: readonly string[], context: VerbContext) => Promise<number>

/** What the library says of its option, as who types a command may say it: QEMU's words. */
const passphraseRequiredHere = "Parameter 'encrypt.key-secret' is required for cipher"

/** A message on standard error, `PROGRAM: MESSAGE`. */
export function report({ program }: VerbContext, message: string): void {
  printError(`${program}: ${message.replace(passphraseRequired, passphraseRequiredHere)}\n`)
}

/** The line after a message about the command line itself. */
export function hint({ program }: VerbContext): void {
  printError(`Try '${program} --help' for more information\n`)
}

/** Options that several verbs have in common. */
export const commonOptions = {
  help: { short: 'h', long: 'help', takesValue: false },
  object: { long: 'object', takesValue: true },
  imageOpts: { long: 'image-opts', takesValue: false },
  forceShare: { short: 'U', long: 'force-share', takesValue: false },
} as const satisfies Record<string, OptionSpec>

export const quietOption = { short: 'q', takesValue: false } as const satisfies OptionSpec
export const progressOption = { short: 'p', takesValue: false } as const satisfies OptionSpec
export const jsonProgressOption = { long: 'json-progress', takesValue: false } as const satisfies OptionSpec

/**
 * The argument of --output.
 * @throws UsageError  neither human nor json
 */
export function wantsJson(output: string | undefined): boolean {
  if (output === undefined || output === 'human') return false
  if (output === 'json') return true
  throw new UsageError('--output must be used with human or json as argument.')
}

/** What the stock tool says beside that a bitmap is inconsistent. @returns the error to throw instead */
export function withBitmapHint(error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message?: string }
  if (code !== 'ERR_BITMAP_INCONSISTENT') return error
  return new UsageError(`${message ?? ''}\nTry block-dirty-bitmap-remove to delete this bitmap from disk`)
}

/** One operand, no more and no less. */
export function onlyOperand(operands: readonly string[]): string {
  const [operand] = operands
  if (operand === undefined || operands.length > 1) {
    throw new UsageError('Expecting one image file name', { showHelpHint: true })
  }
  return operand
}

/** Before something is written to an image that only looks raw: its guest could make it look like anything. */
export function warnOfGuessedRaw(name: string): void {
  printError(`WARNING: Image format was not specified for '${name}' and probing guessed raw.
         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.
         Specify the 'raw' format explicitly to remove the restrictions.
`)
}

/** The same for an image that is about to be opened, if its name brings no format. What is wrong with it is told by whoever opens it. */
export async function warnIfGuessedRaw(name: ImageName): Promise<void> {
  if (name.format !== undefined) return
  const { imageInfo } = await import('../operations/info.js')
  const info = await imageInfo(name.path, { forceShare: true }).catch(() => undefined)
  if (info?.format === 'raw') warnOfGuessedRaw(name.text)
}
