import type { RowResult } from './row.js'

const width = 900
const rowHeight = 26
const labelWidth = 380
const chartWidth = width - labelWidth - 110
/** The chart's ends: a sixteenth and 64 times as fast. */
const [leastPower, mostPower] = [-4, 6]

const xOf = (ratio: number): number => {
  const power = Math.min(mostPower, Math.max(leastPower, Math.log2(ratio)))
  return labelWidth + ((power - leastPower) / (mostPower - leastPower)) * chartWidth
}

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

function bar(row: RowResult, index: number): string {
  const y = 50 + index * rowHeight
  const { median, least, most } = row.value
  const [from, to] = [Math.min(xOf(1), xOf(median)), Math.max(xOf(1), xOf(median))]
  const colour = { goal: '#2a7f3f', floor: '#c08a1e', neither: '#b3392f' }[row.reached]
  const middle = y + rowHeight / 2 - 3
  return [
    `<text x="${labelWidth - 10}" y="${y + 14}" text-anchor="end">${escaped(`${row.name}  ${row.work}`)}</text>`,
    `<rect x="${from.toFixed(1)}" y="${y + 2}" width="${Math.max(1, to - from).toFixed(1)}" height="16" fill="${colour}"/>`,
    `<line x1="${xOf(least).toFixed(1)}" x2="${xOf(most).toFixed(1)}" y1="${middle}" y2="${middle}" stroke="#222" stroke-width="1.5"/>`,
    `<line x1="${xOf(row.goal).toFixed(1)}" x2="${xOf(row.goal).toFixed(1)}" y1="${y}" y2="${y + 20}" stroke="#222" stroke-dasharray="3 2"/>`,
    `<text x="${width - 90}" y="${y + 14}">${median.toFixed(2)} x</text>`,
  ].join('\n')
}

/** How many times as fast as the stock tool, one bar a row, as SVG; the line in a bar is the spread, the dashed one the goal. */
export function picture(rows: readonly RowResult[]): string {
  const shown = rows.filter(({ measure }) => measure === 'stock / ours')
  const height = 70 + shown.length * rowHeight
  const ticks = Array.from({ length: mostPower - leastPower + 1 }, (_, index) => 2 ** (leastPower + index))
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    '<text x="10" y="20" font-size="15">QEMU\'s cost divided by ours: to the right of 1 ours is better. Dashed: the goal</text>',
    ...ticks.map((tick) => {
      const x = xOf(tick).toFixed(1)
      const label = tick < 1 ? `1/${1 / tick}` : String(tick)
      const colour = tick === 1 ? '#222' : '#ddd'
      return `<line x1="${x}" x2="${x}" y1="46" y2="${height - 20}" stroke="${colour}"/><text x="${x}" y="42" text-anchor="middle">${label}</text>`
    }),
    ...shown.map(bar),
    '</svg>',
    '',
  ].join('\n')
}
