import test from 'ava'
import { checkExitCode, checkStatistics, emptyResult } from '../../lib/qcow2/check-result.js'

const result = (changes: Partial<ReturnType<typeof emptyResult>>) => ({ ...emptyResult(128), ...changes })

test('the exit code tells the worst that is left', (t) => {
  t.is(checkExitCode(result({})), 0)
  t.is(checkExitCode(result({ leaks: 3 })), 3)
  t.is(checkExitCode(result({ leaks: 3, corruptions: 1 })), 2)
  t.is(checkExitCode(result({ leaks: 3, corruptions: 1, checkErrors: 1 })), 1)
  t.is(checkExitCode(result({ leaksFixed: 3, corruptionsFixed: 1 })), 0)
})

test('the statistics are in the words of qemu-img, rounded as C rounds', (t) => {
  t.is(
    checkStatistics(result({ allocatedClusters: 4, fragmentedClusters: 1 })),
    '4/128 = 3.12% allocated, 25.00% fragmented, 0.00% compressed clusters',
  )
  t.is(
    checkStatistics(result({ allocatedClusters: 12, fragmentedClusters: 7, compressedClusters: 2 })),
    '12/128 = 9.38% allocated, 58.33% fragmented, 16.67% compressed clusters',
  )
})

test('a disk without a cluster has no statistics', (t) => {
  t.is(checkStatistics(result({})), undefined)
  t.is(checkStatistics({ ...emptyResult(0), allocatedClusters: 1 }), undefined)
})
