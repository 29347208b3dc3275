import type { BlockBackend } from '../queue/backend.js'

/** Tables are read this much at a time: what is read in larger pieces is not read faster. */
const batchBytes = 256 * 1024
/** Requests under way at once. */
const batchTables = 128

/** What is no longer is read on this thread if it is cached. */
const readBytes = 64 * 1024

/** One table of a batch. `index`: its position in the list it came from. `view`: of no bytes where it lies past the end of the file. */
export type ReadTable = { readonly index: number; readonly offset: number; readonly view: DataView }

/** What one batch after the other stands in, as long as it is kept. */
export type TableMemory = { bytes: Uint8Array<ArrayBuffer> }

/**
 * Read tables of one size, many at a time, in the order given; neighbours in the file cost one read. A batch is good until the next one is asked
 * for, which stands in the same memory.
 * @param tables  index and byte offset of each
 * @param memory  for one walk at a time
 */
export async function* readTables(
  backend: BlockBackend,
  tables: Iterable<readonly [index: number, offset: number]>,
  tableBytes: number,
  memory: TableMemory = { bytes: new Uint8Array(0) },
): AsyncGenerator<ReadTable[]> {
  const most = Math.max(1, Math.min(batchTables, Math.floor(batchBytes / tableBytes)))
  let batch: (readonly [number, number])[] = []
  const read = (): Promise<ReadTable[]> => {
    const needed = batch.length * tableBytes
    if (memory.bytes.byteLength < needed) memory.bytes = new Uint8Array(needed)
    return readBatch(backend, batch, tableBytes, memory.bytes)
  }
  for (const table of tables) {
    batch.push(table)
    if (batch.length < most) continue
    yield await read()
    batch = []
  }
  if (batch.length > 0) yield await read()
}

async function readBatch(
  backend: BlockBackend,
  batch: readonly (readonly [number, number])[],
  tableBytes: number,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<ReadTable[]> {
  const nothing = new DataView(bytes.buffer, 0, 0)
  const reads: Promise<void>[] = []
  for (let first = 0; first < batch.length;) {
    const offset = offsetOf(batch, first)
    let end = first + 1
    while (end < batch.length && offsetOf(batch, end) === offset + (end - first) * tableBytes) end++
    reads.push(readWithin(backend, bytes.subarray(first * tableBytes, end * tableBytes), offset))
    first = end
  }
  await Promise.all(reads)
  return batch.map(([index, offset], position) => ({
    index,
    offset,
    view: offset < backend.length ? new DataView(bytes.buffer, position * tableBytes, tableBytes) : nothing,
  }))
}

/** What lies past the end of the file holds nothing, however far: wild entries point anywhere. */
async function readWithin(backend: BlockBackend, bytes: Uint8Array, offset: number): Promise<void> {
  if (offset >= backend.length) return
  const reads: Promise<void>[] = []
  for (let done = 0; done < bytes.length; done += readBytes)
    reads.push(backend.readQueued(bytes.subarray(done, done + readBytes), offset + done))
  await Promise.all(reads)
}

function offsetOf(batch: readonly (readonly [number, number])[], position: number): number {
  return batch[position]?.[1] ?? 0
}

/** What was changed in a table that was read: written back in units of `unit` bytes, only those that changed. */
export class TableChanges {
  readonly #table: ReadTable
  readonly #unit: number
  readonly #units = new Set<number>()

  constructor(table: ReadTable, unit: number) {
    this.#table = table
    this.#unit = unit
  }

  /** @param byteOffset  of the change, within the table */
  mark(byteOffset: number): void {
    this.#units.add(Math.floor(byteOffset / this.#unit))
  }

  get empty(): boolean {
    return this.#units.size === 0
  }

  async write(backend: BlockBackend): Promise<void> {
    const { view, offset } = this.#table
    for (const unit of this.#units) {
      const at = unit * this.#unit
      const length = Math.min(this.#unit, view.byteLength - at)
      await backend.write(new Uint8Array(view.buffer, view.byteOffset + at, length), offset + at)
    }
  }
}

/** An L1 or similar table of 64-bit entries, read piece by piece: it may have 32 MiB. */
export async function* readEntries(
  backend: BlockBackend,
  offset: number,
  entries: number,
): AsyncGenerator<{ readonly first: number; readonly count: number; readonly view: DataView }> {
  const most = batchBytes / 8
  for (let first = 0; first < entries; first += most) {
    const count = Math.min(most, entries - first)
    const bytes = new Uint8Array(count * 8)
    await readWithin(backend, bytes, offset + first * 8)
    yield { first, count, view: new DataView(bytes.buffer) }
  }
}
