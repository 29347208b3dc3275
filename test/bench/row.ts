/** One side of a comparison: does the work once and says what it cost, in the row's unit; less is better. */
export type Side = () => Promise<number>

/** What is being compared, made ready. */
export type Prepared = {
  readonly ours: Side
  /**
   * Of work of milliseconds: ours in a process that has done nothing before, where V8 has compiled none of it. `ours` is then measured when V8 has had the time for that which it has in a program that
   * goes on.
   */
  readonly first?: Side
  /** The stock tool's, by the name of the way it does the work (an aio mode, a cache mode); the best of them is compared with. */
  readonly stock: Readonly<Record<string, Side>>
}

/** Where a row may work, and how much of it. */
export type Bench = {
  /** A folder of its own, on the disk that is measured. */
  readonly folder: string
  /** Part of the full amount of work, above 0 and at most 1. */
  readonly share: number
}

/** A line of the table of targets. */
export type Row = {
  /** As in the table, `5r`; ours come after `Q`. */
  readonly name: string
  readonly work: string
  readonly unit: 'ms' | 'syncs' | 'bytes' | 'MiB' | 'ratio'
  /**
   * What is compared with the goals: how many times the stock tool's cost is ours, or our cost itself, which must not be above them.
   * `own`: our cost, which must not be below them.
   */
  readonly measure: 'stock / ours' | 'ours at most' | 'ours at least'
  readonly floor: number
  readonly goal: number
  /** Fewer pairs than asked for, where one takes long. */
  readonly mostPairs?: number
  readonly prepare: (bench: Bench) => Promise<Prepared>
}

/** What came of a row. All lists are in the order of the pairs. */
export type RowResult = {
  readonly name: string
  readonly work: string
  readonly unit: Row['unit']
  readonly measure: Row['measure']
  readonly floor: number
  readonly goal: number
  readonly ours: readonly number[]
  readonly stock: readonly number[]
  /** Which way of the stock tool's was the best, and what the trial of each gave. */
  readonly stockMode: string
  readonly trials: Readonly<Record<string, number>>
  /** What it cost ours in a process that had done nothing before; of work of milliseconds. */
  readonly first?: number
  /** What `measure` says, the median first. */
  readonly value: Spread
  readonly reached: 'goal' | 'floor' | 'neither'
}

export type Spread = { readonly median: number; readonly least: number; readonly most: number }

/** @param values  at least one */
export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((left, right) => left - right)
  const middle = Math.floor(sorted.length / 2)
  const at = (index: number): number => sorted[index] ?? Number.NaN
  const median = sorted.length % 2 === 1 ? at(middle) : (at(middle - 1) + at(middle)) / 2
  return { median, least: at(0), most: at(sorted.length - 1) }
}

/** Runs of `first`, each in a process of its own; the median counts. */
const firstRuns = 5

/** Times that `ours` is called unmeasured, where there is a `first`. */
const warmUps = 2

/**
 * Measure a row: one unmeasured run of ours, or more, and of each of the stock tool's ways, which also chooses the best of them, and then pairs, of which every other one is turned round (stock, ours, ours, stock), so that
 * what slows the machine down for a while slows both.
 */
export async function measureRow(row: Row, bench: Bench, pairs: number): Promise<RowResult> {
  const { ours, first: firstOne, stock } = await row.prepare(bench)
  const firsts: number[] = []
  for (let run = 0; firstOne !== undefined && run < firstRuns; run++) firsts.push(await firstOne())
  for (let run = 0; run < (firstOne === undefined ? 1 : warmUps); run++) await ours()
  const trials: Record<string, number> = {}
  for (const [mode, side] of Object.entries(stock)) trials[mode] = Math.min(await side(), await side())
  const [stockMode] = Object.entries(trials).reduce(
    (best, next) => (next[1] < best[1] ? next : best),
    ['none', Number.POSITIVE_INFINITY],
  )
  const best = stock[stockMode]
  const costs = { ours: [] as number[], stock: [] as number[] }
  for (let pair = 0; pair < Math.min(pairs, row.mostPairs ?? pairs); pair++) {
    const first = pair % 2 === 0 ? 'stock' : 'ours'
    for (const side of [first, first === 'stock' ? 'ours' : 'stock'] as const) {
      const cost = side === 'ours' ? await ours() : await best?.()
      if (cost !== undefined) costs[side].push(cost)
    }
  }
  const first = firsts.length === 0 ? {} : { first: spread(firsts).median }
  return { ...resultOf(row, costs), stockMode, trials, ...first }
}

function resultOf(
  row: Row,
  { ours, stock }: { ours: number[]; stock: number[] },
): Omit<RowResult, 'stockMode' | 'trials'> {
  const { name, work, unit, measure, floor, goal } = row
  const values =
    measure === 'stock / ours' ? stock.map((cost, pair) => cost / (ours[pair] ?? Number.NaN)) : ours
  const value = spread(values)
  const meets = (bound: number): boolean =>
    measure === 'ours at most' ? value.median <= bound : value.median >= bound
  const reached = meets(goal) ? 'goal' : meets(floor) ? 'floor' : 'neither'
  return { name, work, unit, measure, floor, goal, ours, stock, value, reached }
}
