import type { DiskImage } from '../image/disk-image.js'
import type { OpenOptions } from '../image/open.js'
import { type CommandLine, parseCommandLine } from './command-line.js'
import { type ImageName, parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { print } from './output.js'
import { type MeteredWork, metered } from './progress-meter.js'
import { systemErrorText } from './system-error-text.js'
import { encryptionOf, secretsOf } from './secrets.js'
import { UsageError } from './usage-error.js'
import { commonOptions, jsonProgressOption, onlyOperand, quietOption, warnOfGuessedRaw } from './verb.js'

const options = {
  ...commonOptions,
  list: { short: 'l', takesValue: false },
  create: { short: 'c', takesValue: true },
  apply: { short: 'a', takesValue: true },
  delete: { short: 'd', takesValue: true },
  quiet: quietOption,
  jsonProgress: jsonProgressOption,
} as const

type Line = CommandLine<keyof typeof options>

type Action =
  { readonly kind: 'list' } | { readonly kind: 'create' | 'apply' | 'delete'; readonly name: string }

/** What the stock tool keeps of a longer name, bytes. */
const longestName = 255

/** `qcow2 snapshot`: list, make, apply or delete an internal snapshot. */
export async function snapshot(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const action = actionOf(line)
  const operand = onlyOperand(line.operands)
  const secrets = secretsOf(line.values('object'))
  const name = parseImageName(operand, { format: undefined, imageOptions: line.has('imageOpts') })
  const forceShare = line.has('forceShare') || name.forceShare
  const readOnly = action === undefined || action.kind === 'list'
  if (forceShare && !readOnly) {
    throw new UsageError(
      `Could not open '${name.text}': force-share=on can only be used with read-only images`,
    )
  }
  await metered(line, async (control) => {
    const { signal } = control
    const image = await open(name, { ...encryptionOf(name, secrets), readOnly, forceShare, signal })
    try {
      if (image.format === 'raw' && !readOnly && name.format === undefined) warnOfGuessedRaw(name.text)
      if (action !== undefined) await perform(image, action, control)
    } finally {
      await image.close()
    }
  })
  return 0
}

/** Without an action the image is opened, and nothing done. */
function actionOf(line: Line): Action | undefined {
  const kinds = ['list', 'create', 'apply', 'delete'] as const
  const given = kinds.flatMap((kind) => line.values(kind).map((name) => ({ kind, name })))
  if (given.length > 1) throw new UsageError("Cannot mix '-l', '-a', '-c', '-d'", { showHelpHint: true })
  return given[0]
}

async function open(name: ImageName, given: OpenOptions): Promise<DiskImage> {
  const { openImage } = await import('../image/open.js')
  const format = name.format === undefined ? {} : { format: name.format }
  return openImage(name.path, { ...given, ...format, ...(await gatesOf(name)) })
}

async function perform(image: DiskImage, action: Action, control: MeteredWork): Promise<void> {
  const { signal } = control
  switch (action.kind) {
    case 'list': {
      const { snapshotLines } = await import('./info-report.js')
      const snapshots = await image.snapshots.list()
      if (snapshots.length > 0)
        print(
          snapshotLines(snapshots)
            .map((text) => `${text}\n`)
            .join(''),
        )
      return
    }
    case 'create': {
      const name = Buffer.from(action.name).subarray(0, longestName).toString()
      await image.snapshots.create(name, control).catch((error: unknown) => {
        if (signal.aborted) throw error
        throw new UsageError(`Could not create snapshot '${action.name}': ${systemErrorText(error)}`)
      })
      return
    }
    case 'apply':
      await image.snapshots.apply(action.name, control).catch((error: unknown) => {
        if (signal.aborted) throw error
        throw new UsageError(`Could not apply snapshot '${action.name}': ${whyNotApplied(image, error)}`)
      })
      return
    case 'delete':
      // By its name alone, as the stock tool.
      await image.snapshots.delete({ name: action.name }, control).catch((error: unknown) => {
        if (signal.aborted) throw error
        const isMissing = image.format === 'raw' || codeOf(error) === 'ERR_SNAPSHOT_NOT_FOUND'
        const why = isMissing ? 'snapshot not found' : (error as Error).message
        throw new UsageError(`Could not delete snapshot '${action.name}': ${why}`)
      })
  }
}

function whyNotApplied(image: DiskImage, error: unknown): string {
  if (image.format === 'raw') return 'Block driver does not support snapshots'
  if (codeOf(error) === 'ERR_SNAPSHOT_NOT_FOUND') return 'Failed to load snapshot: No such file or directory'
  return (error as Error).message
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown }).code
}
