import { copyFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { verbs } from '../../lib/cli/verbs.js'
import { runCli } from '../support/cli.js'
import { qemuImg, qemuIo } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

/** Verbs whose work may take long, what they are called with, and what that is called in the reports. */
const long: Readonly<Record<string, readonly [words: string, phases: RegExp]>> = {
  amend: ['-o refcount_bits=32 alone.qcow2', /./],
  check: ['alone.qcow2', /^(references|refcounts|flags)$/],
  commit: ['-f qcow2 top.qcow2', /./],
  compact: ['alone.qcow2', /./],
  compare: ['alone.qcow2 alone.qcow2 -U', /^compare$/],
  convert: ['-O qcow2 alone.qcow2 new.qcow2', /./],
  create: ['-f qcow2 -o preallocation=full new.qcow2 8M', /^create$/],
  dd: ['-O qcow2 if=alone.qcow2 of=new.qcow2 bs=64k', /^copy$/],
  rebase: ['-b other.raw -F raw top.qcow2', /./],
  resize: ['--preallocation=metadata alone.qcow2 16M', /^resize$/],
  snapshot: ['-c now alone.qcow2', /./],
}

async function makeImages(t: ExecutionContext): Promise<string> {
  const folder = await makeFolder(t, { fast: true })
  await qemuImg('create', '-q', '-f', 'qcow2', join(folder, 'alone.qcow2'), '8M')
  await qemuIo(join(folder, 'alone.qcow2'), ['write -q 0 2M', 'write -q 5M 1M'])
  await copyFile(join(folder, 'alone.qcow2'), join(folder, 'base.qcow2'))
  await writeFile(join(folder, 'other.raw'), Buffer.alloc(8 * 1024 * 1024, 5))
  const top = join(folder, 'top.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', top)
  await qemuIo(top, ['write -q -P 3 1M 1M'])
  return folder
}

type Report = { readonly phase: string; readonly bytesDone: number; readonly bytesTotal: number }

for (const [verb, [words, phases]] of Object.entries(long)) {
  test(`${verb} --json-progress is an object a line on standard error, up to the end, and changes nothing else`, async (t) => {
    const plain = await runCli([verb, ...words.split(' ')], await makeImages(t))
    const { code, stdout, stderr } = await runCli(
      [verb, '--json-progress', ...words.split(' ')],
      await makeImages(t),
    )
    t.is(plain.code, 0)
    t.is(plain.stderr, '')
    t.is(code, 0)
    t.is(stdout, plain.stdout)
    t.true(stderr.endsWith('\n'))
    const reports = stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Report)
    let last: Report | undefined
    for (const report of reports) {
      t.deepEqual(Object.keys(report), ['phase', 'bytesDone', 'bytesTotal'])
      t.regex(report.phase, phases)
      t.true(report.bytesDone <= report.bytesTotal, JSON.stringify(report))
      // A phase may come again, from its beginning.
      if (last?.phase === report.phase && report.bytesDone > 0)
        t.true(report.bytesDone >= last.bytesDone, JSON.stringify(report))
      last = report
    }
    t.true(reports.some(({ bytesTotal }) => bytesTotal > 0))
    t.is(last?.bytesDone, last?.bytesTotal)
  })
}

test('every verb has the option in its help, or does not take it', async (t) => {
  const folder = await makeFolder(t)
  for (const [verb, { syntax }] of Object.entries(verbs)) {
    const isLong = Object.hasOwn(long, verb)
    t.is(syntax.includes('[--json-progress]'), isLong, verb)
    if (isLong) continue
    const { code, stderr } = await runCli([verb, '--json-progress', 'x'], folder)
    t.is(code, 1, verb)
    t.regex(stderr, /unrecognized option '--json-progress'/, verb)
  }
})
