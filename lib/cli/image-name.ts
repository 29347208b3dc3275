import { protocolOf } from '../image/path-names.js'
import type { ImageFormat } from '../image/probe.js'
import type { NamedFile } from './named-files.js'
import { parseOptionList } from './option-list.js'
import { UsageError } from './usage-error.js'

/** The image that a user means. */
export type ImageName = {
  /** As the user wrote it: for messages. */
  readonly text: string
  readonly path: string
  /** From -f or from within the name; undefined: to be found out. */
  readonly format: ImageFormat | undefined
  /** Whether the name says that nothing may be written. */
  readonly readOnly: boolean
  readonly forceShare: boolean
  /** Its backing file, that one's, ...: named in the place of what the images say. */
  readonly chain: readonly NamedFile[]
  /** Its external data file, named in the place of what the image says. */
  readonly dataFile: string | undefined
  /** Whose secrets open it (0), its backing file (1), ... where they are encrypted. */
  readonly keySecrets: ReadonlyMap<number, string>
}

export type NameRules = {
  /** Of -f. */
  readonly format: string | undefined
  /** Whether names are lists like `driver=qcow2,file.filename=F`. */
  readonly imageOptions: boolean
}

/**
 * Read a name on the command line: a path, `file:PATH`, `json:{...}`, or with --image-opts an option list. These forms are for
 * what the user types, never for what an image says.
 * @throws UsageError  a protocol or a property that there is not, or a format that is unknown
 */
export function parseImageName(text: string, rules: NameRules): ImageName {
  if (rules.imageOptions) {
    if (rules.format !== undefined) throw new UsageError('--image-opts and --format are mutually exclusive')
    const list = parseOptionList(text).map(({ key, value }) => [key, value ?? 'on'] as const)
    return fromProperties(text, new Map(list), undefined)
  }
  if (text.startsWith('json:')) return fromProperties(text, flatten(text, parseJson(text)), rules.format)
  return {
    text,
    path: plainPath(text),
    format: knownFormat(text, rules.format),
    readOnly: false,
    forceShare: false,
    chain: [],
    dataFile: undefined,
    keySecrets: new Map(),
  }
}

function plainPath(text: string): string {
  const path = pathOf(text, (why) => couldNotOpen(text, why))
  if (path === '') throw couldNotOpen(text, "The 'file' block driver requires a file name")
  return path
}

/**
 * The path that a plain name stands for.
 * @throws what `failure` makes of the reason: a protocol other than `file:`
 */
export function pathOf(text: string, failure: (why: string) => UsageError): string {
  const protocol = protocolOf(text)
  if (protocol === undefined) return text
  if (protocol === 'file') return text.slice('file:'.length)
  throw failure(`Unknown protocol '${protocol}'`)
}

/** @throws UsageError  a format that this package does not have */
export function knownFormat(text: string, format: string | undefined): ImageFormat | undefined {
  if (format === undefined || format === 'qcow2' || format === 'raw') return format
  throw couldNotOpen(text, `Unknown driver '${format}'`)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text.slice('json:'.length))
  } catch (error) {
    throw couldNotOpen(text, `Could not parse the JSON options: ${(error as Error).message}`)
  }
}

/** Longest key of a flattened member: no property has one nearly as long, and what is nested for ever must end. */
const longestKey = 1024

/** `{"file": {"filename": "F"}}` and `{"file.filename": "F"}` are the same. */
function flatten(text: string, value: unknown, prefix = ''): Map<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw couldNotOpen(text, 'The JSON options must be an object')
  }
  if (prefix.length > longestKey) throw couldNotOpen(text, 'The JSON options are nested too deeply')
  const flat = new Map<string, string>()
  for (const [key, member] of Object.entries(value)) {
    if (typeof member === 'object' && member !== null) {
      for (const [inner, leaf] of flatten(text, member, `${prefix}${key}.`)) flat.set(inner, leaf)
    } else {
      flat.set(prefix + key, typeof member === 'boolean' ? (member ? 'on' : 'off') : String(member))
    }
  }
  return flat
}

function fromProperties(
  text: string,
  properties: Map<string, string>,
  format: string | undefined,
): ImageName {
  const take = (name: string): string | undefined => {
    const value = properties.get(name)
    properties.delete(name)
    return value
  }
  const { driver, bareFile, path, protocol } = takePlace(properties, '')
  const readOnly = switchValue(text, 'read-only', take('read-only'))
  const keySecrets = takeKeySecrets(properties)
  const forceShare = switchValue(text, 'force-share', take('force-share'))
  const chain = takeChain(text, properties)
  const dataFile = takeFile(text, properties, 'data-file.')
  if (protocol !== undefined && protocol !== 'file') throw couldNotOpen(text, `Unknown driver '${protocol}'`)
  for (const unknown of properties.keys()) {
    const where = driver === undefined ? '' : ` '${driver}'`
    throw couldNotOpen(text, `Block format${where} does not support the option '${unknown}'`)
  }
  if (path === undefined) throw couldNotOpen(text, "The 'file' block driver requires a file name")
  return {
    text,
    path,
    format: knownFormat(text, bareFile ? 'raw' : (driver ?? format)),
    readOnly,
    forceShare,
    chain,
    dataFile: dataFile?.path,
    keySecrets,
  }
}

/** `backing.driver=qcow2,backing.file.filename=F`, and the same of `backing.backing.`, ... */
function takeChain(text: string, properties: Map<string, string>): NamedFile[] {
  const chain: NamedFile[] = []
  for (let prefix = 'backing.'; ; prefix += 'backing.') {
    const file = takeFile(text, properties, prefix)
    if (file === undefined) return chain
    chain.push(file)
  }
}

/** A file within another's properties. */
function takeFile(text: string, properties: Map<string, string>, prefix: string): NamedFile | undefined {
  const { driver, bareFile, path, protocol } = takePlace(properties, prefix)
  if (protocol !== undefined && protocol !== 'file') throw couldNotOpen(text, `Unknown driver '${protocol}'`)
  if (path !== undefined) return { path, format: knownFormat(text, bareFile ? 'raw' : driver) }
  if (driver === undefined && protocol === undefined) return undefined
  throw couldNotOpen(text, "The 'file' block driver requires a file name")
}

/**
 * Where a file is: `file.filename` below a format; `filename` of a bare protocol driver, which shows the bytes of the file as they are, and that is what raw is.
 * @param prefix  of its properties; '' for the image itself, which does without a driver only if it says `file.filename`
 */
function takePlace(
  properties: Map<string, string>,
  prefix: string,
): {
  driver?: string | undefined
  bareFile: boolean
  path?: string | undefined
  protocol?: string | undefined
} {
  const take = (name: string): string | undefined => {
    const value = properties.get(prefix + name)
    properties.delete(prefix + name)
    return value
  }
  const driver = take('driver')
  const isImplied = prefix !== '' && driver === undefined && properties.has(`${prefix}filename`)
  const bareFile = driver === 'file' || isImplied
  return bareFile
    ? { driver, bareFile, path: take('filename'), protocol: 'file' }
    : { driver, bareFile, path: take('file.filename'), protocol: take('file.driver') }
}

/** `encrypt.key-secret`, `backing.encrypt.key-secret`, ...; the format that may stand beside is the image's to say. */
function takeKeySecrets(properties: Map<string, string>): Map<number, string> {
  const found = new Map<number, string>()
  for (const [key, value] of [...properties]) {
    const [, below, what] = /^((?:backing\.)*)encrypt\.(key-secret|format)$/.exec(key) ?? []
    if (below === undefined) continue
    if (what === 'key-secret') found.set(below.length / 'backing.'.length, value)
    else if (!/^(luks|aes)$/.test(value)) continue
    properties.delete(key)
  }
  return found
}

function switchValue(text: string, name: string, value: string | undefined): boolean {
  if (value === undefined || value === 'off') return false
  if (value === 'on') return true
  throw couldNotOpen(text, `Parameter '${name}' expects 'on' or 'off'`)
}

function couldNotOpen(text: string, why: string): UsageError {
  return new UsageError(`Could not open '${text}': ${why}`)
}
