import test from 'ava'
import { addStats } from '../../lib/queue/add-stats.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'

test('the counters of two files are one by one the sums, syncs by their time too', async (t) => {
  const own = new MemoryBackend()
  const data = new MemoryBackend()
  own.syncWith(data)
  own.enqueue(new Uint8Array(512), 0, own.sectionAfterData())
  await data.write(new Uint8Array(300), 0)
  await data.read(new Uint8Array(100), 0)
  await own.flush()
  const sum = addStats(own.stats(), data.stats())
  t.deepEqual(
    [sum.nodesQueued, sum.dataWrites, sum.dataWriteBytes, sum.dataReads, sum.dataReadBytes],
    [1, 1, 300, 1, 100],
  )
  t.is(sum.syncsIssued, own.stats().syncsIssued + data.stats().syncsIssued)
  t.is(sum.syncMicrosecondsHistogram.length, own.stats().syncMicrosecondsHistogram.length)
  t.is(
    sum.syncMicrosecondsHistogram.reduce((all, count) => all + count, 0),
    sum.syncsIssued,
  )
})
