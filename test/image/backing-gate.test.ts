import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { type BackingGate, backingOption, passGate } from '../../lib/image/backing-gate.js'
import { makeFolder } from '../support/temp-folder.js'

const denied = { code: 'ERR_BACKING_DENIED' }

test('the gate is one of three names or a function', (t) => {
  t.is(backingOption('deny', 'backing'), 'deny')
  const gate = (): undefined => undefined
  t.is(backingOption(gate, 'backing'), gate)
  t.throws(() => backingOption('denyy', 'backing'), {
    code: 'ERR_INVALID_OPTION',
    message: /did you mean "deny"\?/,
  })
})

test('names with a protocol pass no named gate', async (t) => {
  for (const gate of ['same-directory', 'allow', 'deny'] as const) {
    for (const name of ['json:{"file.filename":"/etc/passwd"}', 'nbd:unix:/x', 'file:/etc/passwd']) {
      await t.throwsAsync(
        passGate(gate, { name, format: 'raw', image: '/vm/disk.qcow2' }),
        denied,
        `${gate} ${name}`,
      )
    }
  }
})

test("'deny' lets nothing pass, 'allow' any plain path", async (t) => {
  const folder = await makeFolder(t)
  const image = join(folder, 'disk.qcow2')
  await t.throwsAsync(passGate('deny', { name: 'base', format: 'raw', image }), denied)
  t.deepEqual(await passGate('allow', { name: '/elsewhere/base', format: 'raw', image }), {
    type: 'file',
    path: '/elsewhere/base',
    format: 'raw',
  })
  t.like(await passGate('allow', { name: 'base', format: undefined, image }), {
    path: join(folder, 'base'),
    format: undefined,
  })
})

test("'same-directory' goes by the real path", async (t) => {
  const folder = await makeFolder(t)
  const inside = join(folder, 'vm')
  await mkdir(join(inside, 'below'), { recursive: true })
  for (const path of ['outside', 'vm/base', 'vm/below/base']) await writeFile(join(folder, path), '')
  await symlink('../outside', join(inside, 'link-out'))
  await symlink('base', join(inside, 'link-in'))
  const image = join(inside, 'disk.qcow2')
  const pass = (name: string) => passGate('same-directory', { name, format: 'raw', image })
  t.like(await pass('base'), { path: join(inside, 'base') })
  t.like(await pass(join(inside, 'base')), { path: join(inside, 'base') })
  t.like(await pass('below/../base'), { path: join(inside, 'base') })
  // Where the link leads, so that changing it after the look changes nothing.
  t.like(await pass('link-in'), { path: join(inside, 'base') })
  for (const name of ['../outside', join(folder, 'outside'), 'link-out', 'below/base', '/etc/passwd']) {
    await t.throwsAsync(pass(name), { ...denied, message: /outside the image's folder/ }, name)
  }
  await t.throwsAsync(pass('missing'), { code: 'ERR_NOT_FOUND' })
})

test('a folder that is reached through a link is still the same folder', async (t) => {
  const folder = await makeFolder(t)
  await mkdir(join(folder, 'vm'))
  await writeFile(join(folder, 'vm/base'), '')
  await symlink('vm', join(folder, 'current'))
  const image = join(folder, 'current/disk.qcow2')
  t.like(await passGate('same-directory', { name: 'base', format: 'raw', image }), {
    path: join(folder, 'vm/base'),
  })
})

test('a function decides, and is told all that the image says', async (t) => {
  const reference = { name: 'json:{}', format: 'vmdk', image: '/vm/disk.qcow2' }
  const seen: unknown[] = []
  const gate: BackingGate = (asked) => {
    seen.push(asked)
    return { path: 'base', format: 'raw' }
  }
  t.deepEqual(await passGate(gate, reference), { type: 'file', path: '/vm/base', format: 'raw' })
  t.deepEqual(seen, [reference])
  await t.throwsAsync(
    passGate(() => undefined, reference),
    denied,
  )
  const wrong = (() => ({ path: 'base', format: 'vmdk' })) as unknown as BackingGate
  await t.throwsAsync(passGate(wrong, reference), { code: 'ERR_INVALID_OPTION' })
})

test('a format that is neither qcow2 nor raw is refused by name', async (t) => {
  await t.throwsAsync(passGate('allow', { name: 'b', format: 'vmdk', image: '/vm/d' }), {
    code: 'ERR_UNSUPPORTED_FEATURE',
    message: /'vmdk'/,
  })
})

test('control characters in a name do not reach the terminal', async (t) => {
  const error = await t.throwsAsync(
    passGate('deny', { name: 'a\u001b[2Jb\n', format: 'raw', image: '/vm/d' }),
    denied,
  )
  t.regex(error?.message ?? '', /'a\\u\{1b\}\[2Jb\\u\{a\}'/)
})

test('an answer that stands for nothing is refused as such', async (t) => {
  const reference = { name: 'base', format: 'raw', image: '/disk.qcow2' }
  for (const answer of [null, 5, '', 'a\0b', {}, { path: 5 }, true]) {
    await t.throwsAsync(
      passGate(() => answer as never, reference),
      { instanceOf: TypeError, code: 'ERR_INVALID_OPTION' },
    )
  }
})

test('of names that point outside nothing is told but that, whether there is such a file or not', async (t) => {
  const folder = await makeFolder(t)
  const inside = join(folder, 'vm')
  await mkdir(join(folder, 'there'))
  await mkdir(inside)
  for (const path of ['there/file', 'vm/base']) await writeFile(join(folder, path), '')
  for (const target of ['there', 'gone']) await symlink(`../${target}/file`, join(inside, `link-${target}`))
  const image = join(inside, 'disk.qcow2')
  const ask = (name: string): Promise<unknown> => passGate('same-directory', { name, format: 'raw', image })
  const told = async (name: string, unknown: string): Promise<unknown> => {
    const error = await t.throwsAsync(ask(name), { code: 'ERR_BACKING_DENIED' }, name)
    const { code, cause, errno } = error as Error & { code: string; errno: unknown }
    return { code, cause, errno, message: error?.message.replaceAll(unknown, '*') }
  }
  for (const pattern of ['../*/file', join(folder, '*/file'), '../*/file/more', 'link-*', '../*/x/../../']) {
    const [there, gone] = ['there', 'gone'].map((word) => told(pattern.replace('*', word), word))
    t.deepEqual(await there, await gone, pattern)
  }
  for (const word of ['there', 'gone'])
    await t.notThrowsAsync(ask(`../${word}/../vm/base`), 'what is here is found whatever is there')
  for (const name of ['missing', '../gone/../vm/missing'])
    await t.throwsAsync(ask(name), { code: 'ERR_NOT_FOUND' }, name)
})
