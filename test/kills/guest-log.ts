import { describeValue, stampedBytes, zeroValue } from '../crash/payload.js'

/** A change; value 0 is zeros, others are generations. */
type Submitted = {
  readonly what: 'submitted'
  readonly id: number
  readonly lba: number
  readonly sectors: number
  readonly value: number
}

/** What a guest tells of its requests, one a line, so that whoever outlives it knows what it may expect. */
export type GuestLine =
  | Submitted
  | { readonly what: 'ended'; readonly id: number }
  | { readonly what: 'flushing'; readonly id: number }
  | { readonly what: 'flushed'; readonly id: number }

const letters = { submitted: 's', ended: 'e', flushing: 'f', flushed: 'd' } as const

export function formatLine(line: GuestLine): string {
  const numbers = line.what === 'submitted' ? [line.id, line.lba, line.sectors, line.value] : [line.id]
  return `${letters[line.what]} ${numbers.join(' ')}\n`
}

/** The lines of a guest that may have died in the middle of one. */
export function parseLines(text: string): GuestLine[] {
  const lines: GuestLine[] = []
  for (const line of text.slice(0, text.lastIndexOf('\n') + 1).split('\n')) {
    const [letter, ...words] = line.split(' ')
    const [id = 0, lba = 0, sectors = 0, value = 0] = words.map(Number)
    if (letter === letters.submitted) lines.push({ what: 'submitted', id, lba, sectors, value })
    if (letter === letters.ended) lines.push({ what: 'ended', id })
    if (letter === letters.flushing) lines.push({ what: 'flushing', id })
    if (letter === letters.flushed) lines.push({ what: 'flushed', id })
  }
  return lines
}

export function bytesOf(lba: number, sectors: number, value: number): Uint8Array {
  return value === zeroValue ? new Uint8Array(sectors * 512) : stampedBytes(lba, sectors, value)
}

/** What may be where when a guest has died; of each sector the requests come one after the other. */
export class Expected {
  /** By LBA: the newest value that must be there or be replaced, then all that were submitted after it. */
  readonly #values = new Map<number, { id: number; value: number }[]>()
  readonly #initial: (lba: number) => number
  /** By a flush, or by their own end. */
  readonly #promised = new Set<number>()

  /**
   * @param syncsWrites  what has ended is durable, flushed or not
   * @param initial      what was there at first
   */
  constructor(lines: readonly GuestLine[], syncsWrites: boolean, initial: (lba: number) => number) {
    this.#initial = initial
    const submitted = new Map<number, Submitted>()
    const ended: number[] = []
    const covered = new Map<number, number>()
    for (const line of lines) {
      if (line.what === 'submitted') {
        submitted.set(line.id, line)
        this.#add(line)
      } else if (line.what === 'ended') {
        ended.push(line.id)
        if (syncsWrites) this.#promise(submitted.get(line.id))
      } else if (line.what === 'flushing') covered.set(line.id, ended.length)
      else for (const id of ended.slice(0, covered.get(line.id))) this.#promise(submitted.get(id))
    }
  }

  /** How many changes were promised to be durable. */
  get promises(): number {
    return this.#promised.size
  }

  get lbas(): number[] {
    return [...this.#values.keys()]
  }

  mayShow(lba: number, value: number): boolean {
    return (this.#values.get(lba) ?? []).some((candidate) => candidate.value === value)
  }

  describe(lba: number): string {
    return (this.#values.get(lba) ?? []).map(({ value }) => describeValue(value)).join(', ')
  }

  #add({ id, lba, sectors, value }: Submitted): void {
    for (let at = lba; at < lba + sectors; at++) {
      const values = this.#values.get(at) ?? [{ id: -1, value: this.#initial(at) }]
      values.push({ id, value })
      this.#values.set(at, values)
    }
  }

  /** What was there before it is gone for good. */
  #promise(line: Submitted | undefined): void {
    if (line === undefined) return
    this.#promised.add(line.id)
    for (let at = line.lba; at < line.lba + line.sectors; at++) {
      const values = this.#values.get(at) ?? []
      const place = values.findIndex(({ id }) => id === line.id)
      if (place > 0) values.splice(0, place)
    }
  }
}
