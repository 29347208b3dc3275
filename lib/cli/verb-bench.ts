import type { BenchOptions } from '../operations/bench.js'
import { cacheArgument } from './cache-argument.js'
import { type CommandLine, parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { interruptible } from './interrupts.js'
import { print } from './output.js'
import { sizeArgument } from './sizes.js'
import { UsageError } from './usage-error.js'
import { commonOptions, onlyOperand, quietOption, warnIfGuessedRaw } from './verb.js'

const options = {
  help: commonOptions.help,
  imageOpts: commonOptions.imageOpts,
  forceShare: commonOptions.forceShare,
  format: { short: 'f', takesValue: true },
  count: { short: 'c', takesValue: true },
  depth: { short: 'd', takesValue: true },
  flushInterval: { long: 'flush-interval', takesValue: true },
  native: { short: 'n', takesValue: false },
  aio: { short: 'i', takesValue: true },
  noDrain: { long: 'no-drain', takesValue: false },
  offset: { short: 'o', takesValue: true },
  pattern: { long: 'pattern', takesValue: true },
  bufferSize: { short: 's', takesValue: true },
  step: { short: 'S', takesValue: true },
  cache: { short: 't', takesValue: true },
  write: { short: 'w', takesValue: false },
  quiet: quietOption,
} as const

type Line = CommandLine<keyof typeof options>

/** `qcow2 bench`: how fast requests to a disk are. */
export async function bench(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const requests = {
    count: number(line, 'count', 'request count', 75000),
    depth: number(line, 'depth', 'queue depth', 64),
    flushInterval: number(line, 'flushInterval', 'flush interval', 0),
    pattern: number(line, 'pattern', 'pattern byte', 0, 255),
    offset: sizeArgument('offset', line.value('offset') ?? '0'),
    bufferSize: bytes(line, 'bufferSize', 'buffer size', 4096),
    step: bytes(line, 'step', 'step_size', 0),
    write: line.has('write'),
    drain: !line.has('noDrain'),
  }
  const cache = cacheOf(line.value('cache'))
  const aio = aioOf(line)
  const operand = onlyOperand(line.operands)
  const { flushInterval, depth, write } = requests
  if (!write && flushInterval > 0) throw new UsageError('--flush-interval is only available in write tests')
  if (flushInterval > 0 && flushInterval < depth)
    throw new UsageError("Flush interval can't be smaller than depth")
  // Here 0 requests in flight end in an error, where the stock tool waits for ever.
  if (depth === 0) throw new UsageError('Invalid queue depth specified')
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  const forceShare = name.forceShare || line.has('forceShare')
  refuseMode(name.text, {
    forceShare,
    write,
    isNative: aio === 'native',
    isDirect: /^(none|directsync)$/.test(cache.cache ?? ''),
  })
  if (write) await warnIfGuessedRaw(name)
  const work: BenchOptions = {
    ...requests,
    cache: { mode: cache.cache ?? 'writeback', aio: aio === 'io_uring' ? aio : 'threads' },
    ...(name.format === undefined ? {} : { format: name.format }),
    forceShare,
    ...(await gatesOf(name)),
    onStart: () => announce(requests),
  }
  const { benchImage } = await import('../operations/bench.js')
  const { milliseconds } = await interruptible((signal) => benchImage(name.path, { ...work, signal })).catch(
    (error: unknown) => {
      const isOutside = (error as { code?: unknown }).code === 'ERR_OUT_OF_RANGE'
      throw isOutside ? new UsageError('Failed request: Input/output error') : error
    },
  )
  print(`Run completed in ${(milliseconds / 1000).toFixed(3)} seconds.\n`)
  return 0
}

function announce({
  count,
  write,
  bufferSize,
  depth,
  offset,
  step,
  flushInterval,
}: Required<
  Pick<BenchOptions, 'count' | 'write' | 'bufferSize' | 'depth' | 'offset' | 'step' | 'flushInterval'>
>): void {
  print(
    `Sending ${count} ${write ? 'write' : 'read'} requests, ${bufferSize} bytes each, ${depth} in parallel ` +
      `(starting at offset ${offset}, step size ${step === 0 ? bufferSize : step})\n`,
  )
  if (flushInterval > 0) print(`Sending flush every ${flushInterval} requests\n`)
}

/** A whole number, decimal or hexadecimal. */
function number(
  line: Line,
  option: keyof typeof options,
  what: string,
  otherwise: number,
  most = 2 ** 31 - 1,
): number {
  const text = line.value(option)
  if (text === undefined) return otherwise
  const value = /^\s*\+?(\d+|0x[0-9a-f]+)$/i.test(text) ? Number(text) : Number.NaN
  if (value <= most) return value
  throw new UsageError(`Invalid ${what} specified`)
}

function bytes(line: Line, option: keyof typeof options, what: string, otherwise: number): number {
  const text = line.value(option)
  if (text === undefined) return otherwise
  const most = 2 ** 31 - 1
  const value = sizeArgument(what, text)
  if (value <= most) return value
  throw new UsageError(`Invalid ${what} specified. Must be between 0 and ${most}.`)
}

function cacheOf(text: string | undefined): ReturnType<typeof cacheArgument> {
  try {
    return cacheArgument('cache', text)
  } catch {
    throw new UsageError('Invalid cache mode')
  }
}

/** Native is as good as threads here; where it cannot be it is refused all the same. */
function aioOf(line: Line): 'threads' | 'native' | 'io_uring' {
  const aio = line.value('aio') ?? 'threads'
  if (aio !== 'threads' && aio !== 'native' && aio !== 'io_uring')
    throw new UsageError(`Invalid aio option: ${aio}`)
  return line.has('native') ? 'native' : aio
}

function refuseMode(
  name: string,
  how: { forceShare: boolean; write: boolean; isNative: boolean; isDirect: boolean },
): void {
  if (how.forceShare && how.write)
    throw new UsageError(`Could not open '${name}': force-share=on can only be used with read-only images`)
  if (how.isNative && !how.isDirect) {
    throw new UsageError(
      `Could not open '${name}': aio=native was specified, but it requires cache.direct=on, which was not specified.`,
    )
  }
}
