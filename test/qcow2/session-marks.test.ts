import test, { type ExecutionContext } from 'ava'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { checkQcow2 } from '../../lib/qcow2/check.js'
import {
  checkContents,
  checkedByQemu,
  checkedClean,
  type Disk,
  fill,
  newDisk,
  openDisk,
  readDisk,
} from '../support/qcow2-disk.js'

const lazy = { size: 2 ** 20, clusterSize: 4096, lazyRefcounts: true } as const

/** Of the file as it is now: the lowest byte of the incompatible features. */
const marks = (disk: Disk): number => disk.memory.snapshot()[79] ?? -1

const isDirty = (disk: Disk): boolean => (marks(disk) & 1) === 1

async function crashed(t: ExecutionContext, disk: Disk): Promise<SparseBytes> {
  const contents = SparseBytes.from(disk.memory.snapshot())
  t.true(isDirty(disk), 'a crash shows that counts may lag')
  return contents
}

test('with lazy refcounts the dirty bit is durable before anything else is queued, and gone after a clean close', async (t) => {
  const disk = await newDisk(lazy)
  await disk.image.read(fill(10, 0), 0)
  t.false(isDirty(disk), 'a session that only reads is none')
  await disk.image.write(fill(4096, 1), 0)
  t.true(isDirty(disk))
  const kinds = disk.backend.log.filter(({ kind }) => ['enqueue', 'durable', 'write'].includes(kind))
  t.deepEqual(
    kinds.slice(0, 2).map(({ kind, offset }) => [kind, offset]),
    [
      ['enqueue', 0],
      ['durable', 0],
    ],
  )
  await disk.image.flush()
  t.true(isDirty(disk), 'for as long as the session lasts')
  await checkedByQemu(t, disk)
  t.false(isDirty(disk))
})

test('no reference waits for its count then', async (t) => {
  for (const lazyRefcounts of [true, false]) {
    const disk = await newDisk({ ...lazy, lazyRefcounts })
    await disk.image.write(fill(4096, 1), 0)
    await disk.image.flush()
    const { after } = await disk.parts.allocator.allocate(1)
    const linked = disk.parts.ordering.linkBlankL2Table(disk.parts.l1.slice(0), after)
    t.is(linked > after, !lazyRefcounts)
  }
})

test('a crash leaves counts behind, and a repair puts them right; the bytes are there', async (t) => {
  const disk = await newDisk(lazy)
  for (let cluster = 0; cluster < 20; cluster++) await disk.image.write(fill(4096, cluster), cluster * 4096)
  await disk.image.flush()
  const contents = await crashed(t, disk)
  // As if none of the counts had got there.
  const block = disk.parts.table.block(0) ?? 0
  contents.write(fill(4096, 0), block)
  t.true((await checkContents(contents)).corruptions > 0)
  const backend = new MemoryBackend({ contents })
  const repaired = await checkQcow2(backend, { repair: 'all' })
  await backend.close()
  t.deepEqual([repaired.corruptions, repaired.leaks, repaired.checkErrors], [0, 0, 0])
  const again = await openDisk(backend.contents)
  for (let cluster = 0; cluster < 20; cluster++) {
    t.deepEqual(await readDisk(again, cluster * 4096, 4096), fill(4096, cluster))
  }
  await checkedClean(t, again)
})

test('the dirty bit stays where the last flush fails', async (t) => {
  const disk = await newDisk(lazy)
  await disk.image.write(fill(4096, 1), 0)
  const failure = new Error('no sync')
  disk.backend.fail(({ kind }) => kind === 'flush', failure)
  await t.throwsAsync(disk.image.close(), { is: failure })
  t.true(isDirty(disk))
})
