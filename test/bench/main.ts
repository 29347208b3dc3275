import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { curvePicture } from './curve-picture.js'
import { measureCurves } from './curves.js'
import { longWorkRows } from './long-work-rows.js'
import { OurProcess } from './our-process.js'
import { picture } from './picture.js'
import { queueRows } from './queue-rows.js'
import { curveLines, line, machine, page, type Report } from './report.js'
import { requestRows } from './request-rows.js'
import { measureRow, type RowResult } from './row.js'
import { missingTools, stockVersion } from './stock.js'

const usage = `npm run bench -- [--quick] [--only ROW,...] [--pairs N] [--share PART] [--folder DIR] [--json FILE] [--curves] [--write]

Measures each row of the table of targets against QEMU's tools, in pairs, and prints a line for each.
--quick   a tenth of the work, two pairs: about two minutes
--only    these rows: 1,5r,Q1,...
--pairs   pairs of a row, 7
--share   part of the full amount of work, 1
--folder  where images are made: the disk that is measured
--json    writes what was measured to this file
--curves  how costs grow with images, sizes, chains and clusters, as well
--write   writes docs/performance.md and its pictures, curves among them`

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    pairs: { type: 'string' },
    share: { type: 'string' },
    folder: { type: 'string', default: tmpdir() },
    json: { type: 'string' },
    curves: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

const say = (text: string): void => {
  process.stdout.write(`${text}\n`)
}

async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(values.folder, 'qcow2-bench-'))
  try {
    return await work(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function main(): Promise<number> {
  if (values.help) return (say(usage), 0)
  const missing = await missingTools()
  if (missing.length > 0) return (say(missing.join('\n')), 1)
  const pairs = Number(values.pairs ?? (values.quick ? 2 : 7))
  const share = Number(values.share ?? (values.quick ? 0.1 : 1))
  await using ours = new OurProcess()
  const all = [...requestRows(ours), ...longWorkRows(ours), ...queueRows(ours)]
  const wanted = values.only?.split(',')
  const unknown = wanted?.filter((name) => !all.some((row) => row.name === name)) ?? []
  if (unknown.length > 0) {
    say(`There is no row ${unknown.join(', ')}. There are: ${all.map(({ name }) => name).join(', ')}`)
    return 1
  }
  const rows: RowResult[] = []
  for (const row of all.filter(({ name }) => wanted?.includes(name) ?? true)) {
    const result = await inFolder((folder) => measureRow(row, { folder, share }, pairs))
    rows.push(result)
    say(line(result))
  }
  const curves = values.curves || values.write ? await measureCurves(ours, share, inFolder) : []
  for (const curve of curves) say(curveLines(curve))
  const report: Report = {
    date: new Date().toISOString().slice(0, 10),
    machine: machine(),
    versions: { 'Node.js': process.versions.node, 'qemu-img': await stockVersion() },
    command: `npm run bench -- ${process.argv.slice(2).join(' ')}`.trimEnd(),
    pairs,
    share,
    rows,
    curves,
  }
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(report, undefined, 2)}\n`)
  if (values.write) {
    await mkdir('docs', { recursive: true })
    await writeFile('docs/performance.md', page(report))
    await writeFile('docs/performance.svg', picture(rows))
    await writeFile('docs/performance-curves.svg', curvePicture(curves))
  }
  return 0
}

process.exitCode = await main()
