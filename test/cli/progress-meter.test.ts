import test from 'ava'
import { barLine } from '../../lib/cli/progress-meter.js'

test('the bar grows from nothing to all of it', (t) => {
  const line = (bytesDone: number): string => barLine({ phase: 'copy', bytesDone, bytesTotal: 100 }, 10)
  t.is(line(0), `copy [${'-'.repeat(30)}]   0 %`)
  t.is(line(50), `copy [${'#'.repeat(15)}${'-'.repeat(15)}]  50 %  10 s left`)
  t.is(line(100), `copy [${'#'.repeat(30)}] 100 %  0 s left`)
})

test('work without a size shows an empty bar and does not divide by nothing', (t) => {
  t.is(barLine({ phase: 'copy', bytesDone: 0, bytesTotal: 0 }, 1), `copy [${'-'.repeat(30)}]   0 %`)
})
