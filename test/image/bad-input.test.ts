import { execFileSync, spawnSync } from 'node:child_process'
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import {
  checkImage,
  convertImage,
  createImage,
  imageInfo,
  mapImage,
  openImage,
  Qcow2Error,
  resizeImage,
} from '../../lib/index.js'
import { mayMount, mountSmall } from '../support/mounts.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

/** A small image with a table of every kind and data in two clusters. */
async function makeSmall(path: string): Promise<Buffer> {
  await createImage(path, { size: 40_960, clusterSize: 512 })
  const image = await openImage(path)
  await image.write(new Uint8Array(700).fill(7), 512)
  await image.close()
  return readFile(path)
}

/**
 * Everything that looks at an image, and opening it for writing.
 * @returns the errors, one for each that failed
 */
async function lookEveryWay(path: string): Promise<unknown[]> {
  const ways: (() => Promise<unknown>)[] = [
    () => imageInfo(path, { format: 'qcow2' }),
    () => checkImage(path, { format: 'qcow2' }),
    async () => {
      const image = await openImage(path, { format: 'qcow2', readOnly: true })
      try {
        await image.read({ offset: 0, length: image.size })
      } finally {
        await image.close()
      }
    },
    async () => {
      for await (const extent of mapImage(path, { format: 'qcow2' }))
        if (extent.length <= 0) throw new Error('no length')
    },
    async () => (await openImage(path, { format: 'qcow2' })).close(),
  ]
  const errors: unknown[] = []
  for (const way of ways) await way().catch((error: unknown) => errors.push(error))
  return errors
}

function clearError(error: unknown, path: string): string | undefined {
  if (!(error instanceof Qcow2Error))
    return `no Qcow2Error: ${error instanceof Error ? error.stack : String(error)}`
  if (
    ![
      'ERR_NOT_AN_IMAGE',
      'ERR_CORRUPT',
      'ERR_UNSUPPORTED_FEATURE',
      'ERR_PASSPHRASE_REQUIRED',
      'ERR_DATA_FILE_DENIED',
      // An image with the legacy AES is not written to.
      'ERR_NOT_SUPPORTED',
      'ERR_NOT_FOUND',
      'ERR_BACKING_DENIED',
      'ERR_IO',
    ].includes(error.code)
  )
    return `unexpected code ${error.code}: ${error.message}`
  if (!error.message.includes(path) && error.path === undefined)
    return `does not name the file: ${error.message}`
  return undefined
}

test('an image cut off at any length is refused clearly or read, and never changed', async (t) => {
  t.timeout(600_000)
  const folder = await makeFolder(t, { fast: true })
  const whole = await makeSmall(join(folder, 'whole'))
  const l1Offset = Number(whole.readBigUInt64BE(40))
  let refused = 0
  let next = 0
  const lane = async (number: number): Promise<void> => {
    const path = join(folder, `cut-${number}`)
    while (next < whole.length) {
      const length = next++
      const cut = whole.subarray(0, length)
      await writeFile(path, cut)
      const errors = await lookEveryWay(path)
      for (const error of errors) t.is(clearError(error, path), undefined, `length ${length}`)
      // Before the end of the tables that the header points to, nobody can tell what the disk holds.
      if (length < l1Offset + 8) t.true(errors.length > 0, `length ${length}`)
      if (errors.length > 0) refused++
      t.true((await readFile(path)).equals(cut), `length ${length}: the file was changed`)
    }
  }
  await Promise.all([lane(0), lane(1), lane(2)])
  t.log(`${whole.length} lengths, ${refused} refused`)
})

test('an image with any bytes of its metadata changed is refused clearly or read, and never changed by reading', async (t) => {
  t.timeout(600_000)
  const seed = seedOfRun()
  const mutants = countOfRun('QCOW2_MUTANTS', 400)
  t.log(`QCOW2_SEED=${seed} QCOW2_MUTANTS=${mutants}`)
  const folder = await makeFolder(t, { fast: true })
  const whole = await makeSmall(join(folder, 'whole'))
  const path = join(folder, 'mutant')
  for (let index = 0; index < mutants; index++) {
    const random = new SeededRandom(seed + index)
    const mutant = Buffer.from(whole)
    for (let change = random.between(1, 4); change > 0; change--) {
      // Half of the time the header, where most bytes mean something.
      const at = random.integer(random.chance(0.5) ? 112 : mutant.length)
      mutant[at] = random.pick([0, 1, 2, 0x7f, 0x80, 0xff, random.integer(256)])
    }
    await writeFile(path, mutant)
    for (const error of await lookEveryWay(path)) {
      t.is(clearError(error, path), undefined, `QCOW2_SEED=${seed + index} QCOW2_MUTANTS=1`)
    }
  }
})

test('files that are no image are told of by name', async (t) => {
  const folder = await makeFolder(t)
  const text = join(folder, 'text')
  await writeFile(text, 'this is no image')
  await t.throwsAsync(openImage(text, { format: 'qcow2' }), {
    code: 'ERR_NOT_AN_IMAGE',
    message: `Could not open '${text}': Image is not in qcow2 format`,
  })
  const directory = join(folder, 'directory')
  await mkdir(directory)
  await symlink('nowhere', join(folder, 'dangling'))
  for (const [path, code] of [
    [directory, 'ERR_IS_A_DIRECTORY'],
    [join(folder, 'missing'), 'ERR_NOT_FOUND'],
    [join(folder, 'dangling'), 'ERR_NOT_FOUND'],
    [join(text, 'below'), 'ERR_NOT_FOUND'],
    ['/dev/null', 'ERR_NOT_SUPPORTED'],
  ] as const) {
    for (const operation of [
      () => openImage(path),
      () => imageInfo(path),
      () => checkImage(path),
      () => resizeImage(path, 512),
      () => convertImage(path, join(folder, 'target'), { format: 'raw' }),
    ]) {
      const error = await t.throwsAsync<Qcow2Error>(operation(), { instanceOf: Qcow2Error, code }, path)
      t.true(error?.message.includes(path))
    }
  }
})

/** Run one of the operations as somebody who may do little. @returns the code of its error, or 'done' */
function asNobody(operation: string, path: string): string {
  const library = fileURLToPath(new URL('../../lib/index.js', import.meta.url))
  const program = `
    const library = await import(${JSON.stringify(library)})
    const operations = {
      read: async (path) => (await library.openImage(path, { readOnly: true })).close(),
      write: async (path) => (await library.openImage(path)).close(),
      create: (path) => library.createImage(path, { size: 512, overwrite: true }),
    }
    await operations[process.argv[1]](process.argv[2]).then(
      () => console.log('done'),
      (error) => console.log(error.code + ' ' + error.message))`
  const isRoot = process.getuid?.() === 0
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', program, operation, path],
    {
      encoding: 'utf8',
      ...(isRoot ? { uid: 65534, gid: 65534 } : {}),
    },
  )
  return stdout.trim() || stderr
}

test('without permission an image is not opened, and the message says so', async (t) => {
  const folder = await makeFolder(t)
  await chmod(folder, 0o755)
  const path = join(folder, 'disk')
  await createImage(path, { size: 1024 * 1024 })
  const before = await readFile(path)
  await chmod(path, 0o444)
  t.is(asNobody('read', path), 'done')
  t.is(asNobody('write', path), `ERR_PERMISSION Could not open '${path}': Permission denied`)
  await chmod(path, 0o000)
  t.is(asNobody('read', path), `ERR_PERMISSION Could not open '${path}': Permission denied`)
  await chmod(folder, 0o555)
  t.regex(
    asNobody('create', join(folder, 'new')),
    /^ERR_PERMISSION Could not create '.*new': Permission denied/,
  )
  await chmod(folder, 0o755)
  await chmod(path, 0o644)
  t.true((await readFile(path)).equals(before))
})

test('a file that nobody may change is opened for reading only', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 1024 * 1024 })
  try {
    execFileSync('chattr', ['+i', path], { stdio: 'ignore' })
  } catch {
    t.log('skipped: chattr does not work here')
    t.pass()
    return
  }
  t.teardown(() => execFileSync('chattr', ['-i', path]))
  await (await openImage(path, { readOnly: true })).close()
  await t.throwsAsync(openImage(path), {
    code: 'ERR_PERMISSION',
    message: `Could not open '${path}': Operation not permitted`,
  })
  execFileSync('chattr', ['-i', path])
})

const testMounted = mayMount() ? test : test.skip

testMounted('on a read-only file system an image is opened for reading only', async (t) => {
  const { folder, remount } = await mountSmall(t, 'tmpfs', 4)
  const path = join(folder, 'disk')
  await createImage(path, { size: 1024 * 1024 })
  remount('ro')
  await (await openImage(path, { readOnly: true })).close()
  const message = `Could not open '${path}': Read-only file system`
  await t.throwsAsync(openImage(path), { code: 'ERR_READ_ONLY', message })
  await t.throwsAsync(createImage(join(folder, 'new'), { size: 512 }), { code: 'ERR_READ_ONLY' })
})
