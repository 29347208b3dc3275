import test from 'ava'
import { noSnapshot, snapshotArgument } from '../../lib/cli/snapshot-argument.js'
import { Qcow2Error } from '../../lib/index.js'

test('a word is an id or a name, a list says which', (t) => {
  t.deepEqual(snapshotArgument(undefined), {})
  t.deepEqual(snapshotArgument('a=b'), { snapshot: 'a=b' })
  t.deepEqual(snapshotArgument('snapshot.id=1,snapshot.name=x'), { snapshot: { id: '1', name: 'x' } })
  t.throws(() => snapshotArgument('snapshot.frob=1'), { message: /^Invalid parameter 'snapshot.frob'/ })
})

test('what has no such snapshot is told from what can have none', (t) => {
  const missing = (structure?: string): string | undefined =>
    noSnapshot(new Qcow2Error('ERR_SNAPSHOT_NOT_FOUND', '', structure === undefined ? {} : { structure }))
      ?.message
  t.is(missing('snapshot table'), "Failed to load snapshot: Can't find snapshot")
  t.regex(missing() ?? '', /does not support temporarily loading internal snapshots$/)
  t.is(noSnapshot(new Error('x')), undefined)
})
