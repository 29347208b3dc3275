import type { Curve, CurvePoint } from './curves.js'

const [width, height] = [430, 250]
const plot = { left: 60, right: 410, top: 60, bottom: 205 }
const perRow = 2

const lines = [
  { of: 'stock', name: 'QEMU', colour: '#b3392f' },
  { of: 'ours', name: 'ours', colour: '#2a7f3f' },
] as const

const short = (value: number): string => String(Number(value.toPrecision(2)))

/** Both axes are logarithmic: what is in proportion is a straight line that rises as steeply as the plot does. */
function chart({ work, axis, unit, points }: Curve, index: number): string {
  const costs = points.flatMap(({ ours, stock }) => [ours, stock]).filter((cost) => cost > 0)
  const [least, most] = [Math.min(...costs) / 1.3, Math.max(...costs) * 1.3]
  const [first, last] = [points[0]?.at ?? 1, points.at(-1)?.at ?? 1]
  const x = (at: number): number =>
    plot.left + (Math.log(at / first) / Math.log(last / first)) * (plot.right - plot.left)
  const y = (cost: number): number => {
    const part = Math.log(Math.max(cost, least) / least) / Math.log(most / least)
    return plot.bottom - part * (plot.bottom - plot.top)
  }
  const path = (of: 'ours' | 'stock'): string =>
    points.map((point) => `${x(point.at).toFixed(1)},${y(point[of]).toFixed(1)}`).join(' ')
  const below = (point: CurvePoint): string =>
    `<text x="${x(point.at).toFixed(1)}" y="${plot.bottom + 16}" text-anchor="middle">${point.label}</text>`
  const beside = [least * 1.3, Math.sqrt(least * most), most / 1.3].map((cost) => {
    const at = y(cost).toFixed(1)
    return `<line x1="${plot.left}" x2="${plot.right}" y1="${at}" y2="${at}" stroke="#ddd"/><text x="${plot.left - 6}" y="${Number(at) + 4}" text-anchor="end">${short(cost)}</text>`
  })
  const [title = '', remark = ''] = work.split('; ')
  return [
    `<g transform="translate(${(index % perRow) * width} ${Math.floor(index / perRow) * height})">`,
    `<text x="10" y="20" font-size="13" font-weight="bold">${title}, ${unit}</text>`,
    `<text x="10" y="36" fill="#555">${remark.replaceAll('`', '')}</text>`,
    ...beside,
    ...lines.map(
      ({ of, colour }) =>
        `<polyline points="${path(of)}" fill="none" stroke="${colour}" stroke-width="2"/>` +
        points
          .map(
            (point) =>
              `<circle cx="${x(point.at).toFixed(1)}" cy="${y(point[of]).toFixed(1)}" r="3" fill="${colour}"/>`,
          )
          .join(''),
    ),
    ...points.map(below),
    `<text x="${(plot.left + plot.right) / 2}" y="${plot.bottom + 34}" text-anchor="middle" fill="#555">${axis}</text>`,
    '</g>',
  ].join('\n')
}

/** The curves side by side, as SVG. */
export function curvePicture(curves: readonly Curve[]): string {
  const rows = Math.ceil(curves.length / perRow)
  const legend = lines.map(
    ({ name, colour }, index) =>
      `<rect x="${10 + index * 80}" y="${rows * height + 8}" width="12" height="12" fill="${colour}"/><text x="${28 + index * 80}" y="${rows * height + 18}">${name}</text>`,
  )
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width * perRow} ${rows * height + 30}" font-family="sans-serif" font-size="11">`,
    `<rect width="${width * perRow}" height="${rows * height + 30}" fill="#fff"/>`,
    ...curves.map(chart),
    ...legend,
    '</svg>',
    '',
  ].join('\n')
}
