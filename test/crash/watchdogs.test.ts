import test from 'ava'
import { FailurePolicy } from '../../lib/image/failure-policy.js'
import { faultWorkloads } from './fault-workloads.js'
import { faultLoop } from './faults.js'
import type { Mutant } from './mutant.js'
import { replace } from './mutant-tools.js'
import { within } from './workload.js'

// "No hangs" says something only if they are noticed. (A rejection that nobody handles ends a run of ava by itself.)

const mutant = (lacks: string, install: Mutant['install']): Mutant => ({
  name: 'watchdog',
  lacks,
  starts: [],
  clusterSizes: [],
  install,
})

test('work that does not end is told of', async (t) => {
  const stuck = new Promise<void>(() => undefined)
  await t.throwsAsync(within(100, stuck, 'it'), { message: 'it hangs: nothing more happens' })
  t.is(await within(100, Promise.resolve(1), 'it'), 1)
})

test.serial('the fault loops notice a request that never ends', async (t) => {
  const [workload] = await faultWorkloads()
  if (workload === undefined) return t.fail('there is a workload')
  const stuck = mutant('what failed is told', () =>
    replace(FailurePolicy.prototype, 'run', (run) => {
      return function <T>(this: FailurePolicy, request: () => Promise<T>, kind: 'read' | 'change') {
        return (run.call(this, request, kind) as Promise<T>).catch(() => new Promise<T>(() => undefined))
      }
    }),
  )
  const { problem } = await faultLoop(workload, 'EIO', { mutant: stuck })
  t.regex(problem ?? '', /hangs/)
})
