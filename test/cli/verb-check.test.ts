import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { runCli } from '../support/cli.js'
import { makeFolder } from '../support/temp-folder.js'

/** Where a 64 KiB cluster image of ours has the entries of its first refcount block, 16 bits each. */
const refcountBlock = 2 * 65536

/** A 4 MiB image with one data cluster, number 5, and changed refcounts. */
async function makeImage(
  t: ExecutionContext,
  refcounts: readonly (readonly [number, number])[],
): Promise<string> {
  const folder = await makeFolder(t)
  await writeFile(join(folder, 'source.raw'), Buffer.alloc(65536, 1))
  await runCli(['convert', '-f', 'raw', '-O', 'qcow2', 'source.raw', 'x.qcow2'], folder)
  const file = await open(join(folder, 'x.qcow2'), 'r+')
  try {
    for (const [cluster, refcount] of refcounts) {
      await file.write(Uint8Array.from([0, refcount]), 0, 2, refcountBlock + 2 * cluster)
      // Only what lies within the file counts.
      await file.truncate(Math.max((await file.stat()).size, (cluster + 1) * 65536))
    }
  } finally {
    await file.close()
  }
  return folder
}

test('a clean image gives exit code 0', async (t) => {
  const { code, stdout, stderr } = await runCli(['check', 'x.qcow2'], await makeImage(t, []))
  t.is(code, 0)
  t.is(stderr, '')
  t.is(
    stdout,
    'No errors were found on the image.\n' +
      '1/1 = 100.00% allocated, 0.00% fragmented, 0.00% compressed clusters\nImage end offset: 393216\n',
  )
})

test('leaks alone give exit code 3, and go away with -r leaks', async (t) => {
  const folder = await makeImage(t, [[9, 1]])
  const found = await runCli(['check', 'x.qcow2'], folder)
  t.is(found.code, 3)
  t.is(found.stderr, 'Leaked cluster 9 refcount=1 reference=0\n')
  t.regex(
    found.stdout,
    /^\n1 leaked clusters were found on the image\.\nThis means waste of disk space, but no harm to data\.\n/,
  )
  const repaired = await runCli(['check', '-r', 'leaks', 'x.qcow2'], folder)
  t.is(repaired.code, 0)
  t.regex(
    repaired.stdout,
    /^The following inconsistencies were found and repaired:\n\n {4}1 leaked clusters\n {4}0 corruptions\n\nDouble checking/,
  )
  t.is((await runCli(['check', 'x.qcow2'], folder)).code, 0)
})

test('corruptions give exit code 2, and -r all repairs them', async (t) => {
  const folder = await makeImage(t, [[5, 0]])
  const found = await runCli(['check', '--output=json', 'x.qcow2'], folder)
  t.is(found.code, 2)
  t.like(JSON.parse(found.stdout), {
    corruptions: 2,
    'check-errors': 0,
    format: 'qcow2',
    filename: 'x.qcow2',
  })
  t.is((await runCli(['check', '-r', 'all', 'x.qcow2'], folder)).code, 0)
  t.is((await runCli(['check', 'x.qcow2'], folder)).code, 0)
})

test('a format without a check gives exit code 63, and what cannot be opened 1', async (t) => {
  const folder = await makeImage(t, [])
  t.is((await runCli(['check', '-f', 'raw', 'source.raw'], folder)).code, 63)
  t.is((await runCli(['check', 'missing'], folder)).code, 1)
  t.is((await runCli(['check', '-f', 'qcow2', 'source.raw'], folder)).code, 1)
})

test('-q leaves the findings and nothing else', async (t) => {
  const folder = await makeImage(t, [[9, 1]])
  t.deepEqual(await runCli(['check', '-q', 'x.qcow2'], folder), {
    code: 3,
    stdout: '',
    stderr: 'Leaked cluster 9 refcount=1 reference=0\n',
  })
})
