import { basename } from 'node:path'
import { formatSize } from '../base/size-text.js'
import { escapeName } from '../qcow2/header-extensions.js'
import { type CellRun, kinds, layersShown, type MapCells } from './map-cells.js'

/** Cells of a picture, and how they stand. Lengths are those of the picture. */
const columns = 64
const mostRows = 40
export const mostCells = columns * mostRows

const cellSize = 13
const width = 960
const margin = 24
const labelWidth = width - 2 * margin - columns * cellSize
const gridLeft = margin + labelWidth
const gridTop = 84
const legendRow = 24
/** Longest text, in characters, beside which another has room. */
const longestHalf = 58
/** Least height of a share that is there, of a cell's 12: the smallest is seen. */
const leastShare = 2
/** Longest name of a file that is shown, characters. */
const longestName = 60

/** What a picture is of. */
export type MapNames = {
  readonly image: string
  /** Guest bytes of the whole disk. */
  readonly size: number
  /** By layer. */
  readonly files: readonly string[]
}

/** The picture as an SVG document: colours follow the reader's light or dark mode, hovering a part tells what it is. */
export function mapSvg(cells: MapCells, names: MapNames): string {
  const totals = cells.totals()
  const rows = Math.ceil(cells.cellCount / columns)
  const gridHeight = rows * cellSize
  const legendTop = gridTop + gridHeight + 26
  const title = `Map of ${shortName(names.image)}`
  const summary = summaryOf(cells, names)
  const texts = totals.map((share) => shareText(share, cells.length, names))
  const legendColumns = texts.every((text) => text.length <= longestHalf) ? 2 : 1
  const height = legendTop + Math.ceil(texts.length / legendColumns) * legendRow + margin - 8
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="map-title map-text">`,
    `<title id="map-title">${escaped(title)}</title>`,
    `<desc id="map-text">${escaped([summary, ...texts.map((text) => `${text}.`)].join(' '))}</desc>`,
    `<style>${style}</style>`,
    `<defs>${definitions(totals)}</defs>`,
    `<rect class="ground" width="${width}" height="${height}"/>`,
    `<text class="title" x="${margin}" y="36">${escaped(title)}</text>`,
    `<text class="quiet" x="${margin}" y="60">${escaped(summary)}</text>`,
    ...Array.from({ length: rows }, (_, row) => rowLabel(cells, row, rows)).filter((label) => label !== ''),
    ...[...cells.cellRuns()].map((run) => drawRun(run, names)),
    `<rect class="grid" x="${gridLeft}" y="${gridTop}" width="${columns * cellSize}" height="${gridHeight}" fill="url(#grid)"/>`,
    ...totals.map((share, index) => {
      const x = margin + (index % legendColumns) * ((width - 2 * margin) / legendColumns)
      const y = legendTop + Math.floor(index / legendColumns) * legendRow
      return legend(share, texts[index] ?? '', x, y)
    }),
    '</svg>',
    '',
  ].join('\n')
}

function summaryOf(cells: MapCells, { size }: MapNames): string {
  if (cells.length === 0) return `A disk of ${formatSize(size)}: there is nothing to show.`
  const whole = cells.length === size
  const part = whole ? '' : `, from ${cells.offset} on ${formatSize(cells.length)} of it`
  const one = cells.cellCount === 1 ? '1 cell' : `${cells.cellCount} cells`
  return `A disk of ${formatSize(size)}${part}, in ${one} of ${formatSize(cells.cellBytes)}, row by row.`
}

/** Light first; a program that knows no dark mode takes that. */
const style = `
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#1f2328}
.title{font-size:18px;font-weight:600}
.quiet{fill:#59636e}
.label{font-size:11px;fill:#59636e;text-anchor:end}
.ground{fill:#fff}
.grid{pointer-events:none}
.line{stroke:#fff}
.none{fill:#e4e8ee}
.d0{fill:#2f6fde}.d1{fill:#12946f}.d2{fill:#d08a0e}.d3{fill:#9046c8}.d4{fill:#bd4b3a}
.tint{fill-opacity:.22}
.stripe{stroke:#fff;stroke-opacity:.65;stroke-width:2}
@media(prefers-color-scheme:dark){
text{fill:#e6edf3}
.quiet,.label{fill:#9198a1}
.ground{fill:#0d1117}
.line{stroke:#0d1117}
.none{fill:#262c36}
.d0{fill:#4d8dff}.d1{fill:#2bb894}.d2{fill:#e0a63a}.d3{fill:#b888f0}.d4{fill:#e5806e}
.tint{fill-opacity:.3}
.stripe{stroke:#0d1117}
}
`

/** The patterns: of the lines between cells, and of what is told apart by more than its colour. */
function definitions(totals: CellRun['shares']): string {
  const place = `x="${gridLeft}" y="${gridTop}" width="${cellSize}" height="${cellSize}" patternUnits="userSpaceOnUse"`
  const end = cellSize - 0.5
  const patterns = [
    `<pattern id="grid" ${place}><path class="line" d="M${end} 0V${cellSize}M0 ${end}H${cellSize}"/></pattern>`,
  ]
  for (const { kind } of totals) {
    const { state, depth } = kinds[kind] ?? { state: 'data', depth: 0 }
    const square = `width="${cellSize}" height="${cellSize}"`
    if (state === 'compressed') {
      const stripes = `<path class="stripe" d="M-2 8.5L8.5 -2M-2 15L15 -2M4.5 15L15 4.5"/>`
      patterns.push(
        `<pattern id="c${depth}" ${place}><rect class="d${depth}" ${square}/>${stripes}</pattern>`,
      )
    }
    if (state === 'zero') {
      const dot = `<circle class="d${depth}" cx="6" cy="6" r="1.7"/>`
      patterns.push(
        `<pattern id="z${depth}" ${place}><rect class="d${depth} tint" ${square}/>${dot}</pattern>`,
      )
    }
  }
  return patterns.join('')
}

/** How a part of that kind is filled. */
function fillOf(kind: number): string {
  const { state, depth } = kinds[kind] ?? { state: 'unallocated', depth: 0 }
  if (state === 'compressed') return `fill="url(#c${depth})"`
  if (state === 'zero') return `fill="url(#z${depth})"`
  return state === 'data' ? `class="d${depth}"` : 'class="none"'
}

/** Where a row begins, on the disk: of many rows those that have room for it. */
function rowLabel(cells: MapCells, row: number, rows: number): string {
  const every = rows > 12 ? 4 : rows > 4 ? 2 : 1
  if (row % every !== 0) return ''
  const offset = cells.offset + row * columns * cells.cellBytes
  const y = gridTop + row * cellSize + 10
  return `<text class="label" x="${gridLeft - 8}" y="${y}">${escaped(formatSize(offset))}</text>`
}

function drawRun(run: CellRun, names: MapNames): string {
  const [share, ...others] = run.shares
  if (share === undefined) return ''
  const where = `offset ${run.offset} (${formatSize(run.offset)}), length ${run.length} (${formatSize(run.length)})`
  if (others.length === 0) {
    const title = escaped(`${kindText(share.kind, names)}: ${where}`)
    return `<path ${fillOf(share.kind)} d="${outline(run)}"><title>${title}</title></path>`
  }
  const told = run.shares.map((one) => `${kindText(one.kind, names)} ${formatSize(one.bytes)}`).join(', ')
  return `<g><title>${escaped(`${where}: ${told}`)}</title>${stack(run)}</g>`
}

const xOf = (cell: number): number => gridLeft + (cell % columns) * cellSize
const yOf = (cell: number): number => gridTop + Math.floor(cell / columns) * cellSize

/** The cells of a run: the rest of a row, whole rows, the beginning of a row; none of them if there are none. */
function outline({ first, count }: CellRun): string {
  const parts: string[] = []
  const end = first + count
  for (let cell = first; cell < end;) {
    const inRow = Math.min(end, cell - (cell % columns) + columns) - cell
    const rows = inRow === columns ? Math.floor((end - cell) / columns) : 1
    const [right, down] = [inRow * cellSize, rows * cellSize]
    parts.push(`M${xOf(cell)} ${yOf(cell)}h${right}v${down}h${-right}z`)
    cell += rows * inRow
  }
  return parts.join('')
}

/** The shares of a cell, one over the other, the first at the bottom. */
function stack({ first, shares, length }: CellRun): string {
  const drawn = cellSize - 1
  const wanted = shares.map(({ bytes }) => Math.max(leastShare, (drawn * bytes) / length))
  const sum = wanted.reduce((all, one) => all + one, 0)
  let y = yOf(first) + drawn
  return shares
    .map(({ kind }, index) => {
      const high = (drawn * (wanted[index] ?? 0)) / sum
      y -= high
      const place = `x="${xOf(first)}" y="${y.toFixed(2)}" width="${cellSize}" height="${high.toFixed(2)}"`
      return `<rect ${fillOf(kind)} ${place}/>`
    })
    .join('')
}

/** What a part is, in words. */
function kindText(kind: number, { files }: MapNames): string {
  const { state, depth } = kinds[kind] ?? { state: 'unallocated', depth: 0 }
  if (state === 'unallocated') return 'unallocated'
  const what = state === 'zero' ? 'zeros' : state === 'compressed' ? 'compressed data' : 'data'
  if (files.length < 2) return what
  if (depth === layersShown - 1 && files.length > layersShown) return `${what} of layer ${depth} or deeper`
  return `${what} of layer ${depth}, ${shortName(files[depth] ?? '')}`
}

function shareText({ kind, bytes }: CellRun['shares'][number], whole: number, names: MapNames): string {
  const percent = (100 * bytes) / whole
  const shown = percent > 0 && percent < 0.1 ? 'below 0.1' : percent.toFixed(1).replace(/\.0$/, '')
  return `${kindText(kind, names)}: ${formatSize(bytes)} (${shown} %)`
}

function legend(share: CellRun['shares'][number], text: string, x: number, y: number): string {
  // Moved there from the first cell, so that patterns begin with it.
  const square = `x="${gridLeft}" y="${gridTop}" width="${cellSize - 1}" height="${cellSize - 1}"`
  const moved = `transform="translate(${x - gridLeft} ${y - gridTop})"`
  const facts = `data-kind="${kindName(share.kind)}" data-bytes="${share.bytes}"`
  const words = `<text x="${x + 22}" y="${y + 11}">${escaped(text)}</text>`
  return `<g ${facts}><rect ${fillOf(share.kind)} ${square} ${moved}/>${words}</g>`
}

/** For programs: `data-0`, `zero-1`, `unallocated`. */
function kindName(kind: number): string {
  const { state, depth } = kinds[kind] ?? { state: 'unallocated', depth: 0 }
  return state === 'unallocated' ? state : `${state}-${depth}`
}

/** A file without its folder, safe to print; of a long name the ends. */
function shortName(path: string): string {
  const name = Array.from(escapeName(basename(path)))
  if (name.length <= longestName) return name.join('')
  const half = Math.floor((longestName - 3) / 2)
  return `${name.slice(0, half).join('')}...${name.slice(-half).join('')}`
}

/** Text for XML, without what XML cannot hold. */
function escaped(text: string): string {
  return text
    .replace(/[\p{Cs}\uFFFE\uFFFF]/gu, '\uFFFD')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}
