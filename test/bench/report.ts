import { arch, cpus, release, totalmem } from 'node:os'
import type { Curve } from './curves.js'
import { type RowResult, type Spread, spread } from './row.js'

/** What was measured, where and with what. */
export type Report = {
  readonly date: string
  readonly machine: string
  readonly versions: Readonly<Record<string, string>>
  readonly command: string
  readonly pairs: number
  /** Part of the full amount of work. */
  readonly share: number
  readonly rows: readonly RowResult[]
  readonly curves: readonly Curve[]
}

export function machine(): string {
  const model = cpus()[0]?.model ?? 'a processor without a name'
  return `${cpus().length} x ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, ${arch()}`
}

function number(value: number): string {
  if (value >= 100 || Number.isInteger(value)) return value.toFixed(0)
  return value.toFixed(value >= 10 ? 1 : 2)
}

const between = ({ median, least, most }: Spread): string =>
  least === most ? number(median) : `${number(median)} (${number(least)} to ${number(most)})`

const medianOf = (values: readonly number[]): string => {
  if (values.length === 0) return '-'
  const sorted = [...values].sort((left, right) => left - right)
  return number(sorted[Math.floor(sorted.length / 2)] ?? Number.NaN)
}

/** What a goal asks for, in few characters. */
function goals({ measure, floor, goal }: RowResult): string {
  const sign = measure === 'ours at most' ? '<=' : '>='
  return floor === goal ? `${sign} ${floor}` : `${sign} ${floor}, ${goal}`
}

const columns = ['row', 'work', 'ours', 'QEMU', 'unit', 'QEMU by', 'value', 'floor, goal', 'reached'] as const

function cells(row: RowResult): string[] {
  return [
    row.name,
    row.work,
    medianOf(row.ours),
    medianOf(row.stock),
    row.unit,
    row.stock.length === 0 ? '-' : row.stockMode,
    between(row.value),
    goals(row),
    row.reached,
  ]
}

/** A line for the terminal, as soon as a row is done. */
export function line(row: RowResult): string {
  const [name = '', work = '', ours = '', stock = '', unit = '', mode = '', value = '', wanted = ''] =
    cells(row)
  const costs = row.stock.length === 0 ? `${ours} ${unit}` : `${ours} against ${stock} ${unit} (${mode})`
  return `${name.padEnd(5)}${work.padEnd(62)} ${value.padEnd(24)} ${wanted.padEnd(12)} ${row.reached.padEnd(8)} ${costs}`
}

function table(rows: readonly RowResult[]): string {
  const rule = columns.map(() => '---')
  return [columns, rule, ...rows.map(cells)].map((words) => `| ${words.join(' | ')} |`).join('\n')
}

/** A curve for the terminal. */
export function curveLines({ work, axis, unit, points }: Curve): string {
  const words = points.map(
    ({ label, ours, stock }) =>
      `  ${label.padStart(10)}  ${number(ours)} against ${number(stock)} ${unit}, ${number(stock / ours)} times`,
  )
  return [`${work}, by ${axis}`, ...words].join('\n')
}

function curveTable({ work, axis, unit, points }: Curve): string {
  const cellsOf = (words: string[]): string => `| ${words.join(' | ')} |`
  const head = [axis, ...points.map(({ label }) => label)]
  return [
    `${work[0]?.toUpperCase()}${work.slice(1)}:\n`,
    cellsOf(head),
    cellsOf(head.map(() => '---')),
    cellsOf([`ours, ${unit}`, ...points.map(({ ours }) => number(ours))]),
    cellsOf([`QEMU, ${unit}`, ...points.map(({ stock }) => number(stock))]),
  ].join('\n')
}

/** What the rows of milliseconds cost a program that does their work once. @param firsts  a text for each */
function firstRuns(firsts: readonly string[]): string {
  if (firsts.length === 0) return ''
  return `Where the table says \`in process\` and takes milliseconds, both sides do the work ten times for one figure, and ours has done it twenty times before, as V8 compiles meanwhile what is done again and again. In a
process that has done nothing yet, and with V8 that has compiled nothing, ours takes: ${firsts.join(', ')}.\n\n`
}

/** The whole report as a page; docs/speed.md has what is behind the figures. */
export function page(report: Report): string {
  const { rows } = report
  const reached = (wanted: RowResult['reached']): RowResult[] =>
    rows.filter(({ reached: is }) => is === wanted)
  const losses = rows.filter(({ measure, value }) => measure === 'stock / ours' && value.median < 1)
  const firsts = rows.flatMap(({ name, first, stock }) =>
    first === undefined
      ? []
      : [`${name} ${number(first)} ms (${number(spread(stock).median / first)} times QEMU's)`],
  )
  const versions = Object.entries(report.versions).map(([name, version]) => `${name} ${version}`)
  const lost = losses.map(({ name, work, value }) => `- ${name}, ${work}: ${between(value)}`)
  return `# Performance

Written by \`${report.command}\`; do not edit. ${report.date}, ${report.machine}; ${versions.join(', ')}.

![How many times as fast as QEMU, row by row](performance.svg)

Each row is ${report.pairs} pairs at most, QEMU and ours in turns on the same machine with the same offsets, cluster size, cache mode, depth and durability; QEMU by the best of its ways (aio threads, native, io_uring) for
that row. \`value\` is the median of the pairs, and the least and the most of them: where the unit is a time or a size, how many times ours QEMU's is; else our own figure. Our side runs in a process that has
done the row's work once before; QEMU's times are those that \`qemu-img bench\` prints, so that its start is not in them, and for \`convert\`, \`info\`, \`map\` and \`check\` those of the whole process, which is
what a program would have to wait for. Both sides of \`convert\` end with a sync. Memory is growth over the idle process.

${firstRuns(firsts)}${table(rows)}

${reached('goal').length} of ${rows.length} rows reach their goal, ${reached('floor').length} more their floor, ${reached('neither').length} neither.

## How costs grow

![Curves of costs](performance-curves.svg)

${report.curves.map(curveTable).join('\n\n')}

## What is not a win

${lost.length === 0 ? 'Nothing here was slower than QEMU.' : `Slower than QEMU, or larger:\n\n${lost.join('\n')}`}

[speed.md](speed.md) says what limits the rows that miss their goals, what was tried, and what was kept.

Unflushed sequential allocation costs QEMU few syncs too (5 for 1000 writes): what the queue saves shows where writes are flushed. \`lazy_refcounts=on\` halves QEMU's syncs in Q1b.
`
}
