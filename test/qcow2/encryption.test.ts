import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { inspect } from 'node:util'
import test from 'ava'
import { checkImage, createImage, imageInfo, openImage, Qcow2Error } from '../../lib/index.js'
import { headerBytes } from '../../lib/luks/spec.js'
import { makeFolder } from '../support/temp-folder.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

const passphrase = 'shibboleth'
const encryption = { passphrase }
const encrypt = { format: 'luks', passphrase, cipherAlg: 'aes-128', cipherMode: 'cbc', iterTime: 1 } as const

test('a passphrase is asked for with the image that it is for, and never told', async (t) => {
  const folder = await makeFolder(t)
  const [base, top] = [join(folder, 'base'), join(folder, 'top')]
  await createImage(base, { size: 65536, encrypt: { ...encrypt, passphrase: 'another' } })
  await createImage(top, { size: 65536, encrypt, backingFile: 'base', backingFormat: 'qcow2' })
  const asked: unknown[] = []
  const image = await openImage(top, {
    encryption: {
      passphrase: (about) => {
        asked.push(about)
        return about.depth === 0 ? passphrase : Buffer.from('another')
      },
    },
  })
  t.deepEqual(asked, [
    { path: base, depth: 1 },
    { path: top, depth: 0 },
  ])
  t.notRegex(inspect(image, { depth: 20, showHidden: true }), /shibboleth/)
  await image.close()
  for (const given of [encryption, { passphrase: Buffer.from('wrong-shibboleth') }]) {
    const error = await t.throwsAsync(openImage(top, { encryption: given }), { code: 'ERR_WRONG_PASSPHRASE' })
    const told = inspect(error, { depth: 20, showHidden: true })
    t.notRegex(told, /shibboleth/)
    t.notRegex(told, new RegExp(Buffer.from('shibboleth').toString('hex').replace(/../g, '$& ?')))
  }
  await t.throwsAsync(openImage(top), { code: 'ERR_PASSPHRASE_REQUIRED' })
})

test('an option in the wrong place does not tell the passphrase', async (t) => {
  const attempts: (() => Promise<unknown>)[] = [
    () => openImage('x', { encryption: passphrase as never }),
    () => createImage('x', { size: 512, encrypt: passphrase as never }),
    () => openImage('x', { encryption: { passphrase: [passphrase] as never } }),
  ]
  for (const attempt of attempts) {
    const error = await t.throwsAsync(attempt(), { code: 'ERR_INVALID_OPTION' })
    t.notRegex(inspect(error), /shibboleth/)
  }
})

test('whatever a LUKS header says, it is opened or refused clearly, in no time', async (t) => {
  t.timeout(120_000)
  const seed = seedOfRun()
  t.log(`QCOW2_SEED=${seed}`)
  const random = new SeededRandom(seed)
  const folder = await makeFolder(t)
  const [whole, path] = [join(folder, 'whole'), join(folder, 'mutant')]
  await createImage(whole, { size: 65536, encrypt })
  const bytes = await readFile(whole)
  const start = bytes.indexOf('LUKS')
  const codes = new Set(['ERR_CORRUPT', 'ERR_UNSUPPORTED_FEATURE', 'ERR_WRONG_PASSPHRASE'])
  // Every word of the header, and the pointer to it in the first cluster.
  const places = Array.from({ length: headerBytes / 4 }, (_, index) => start + 4 * index)
  places.push(112, 116, 120, 124, 128, 132)
  for (const at of places) {
    const mutant = Buffer.from(bytes)
    mutant.writeUInt32BE(random.pick([0, 1, 0x7fffffff, 0xffffffff, random.integer(2 ** 32)]), at)
    await writeFile(path, mutant)
    // So many iterations as take a moment.
    const image = await openImage(path, {
      readOnly: true,
      encryption: { passphrase, maxIterations: 20_000 },
    }).catch((error: unknown) => error)
    if (image instanceof Qcow2Error) t.true(codes.has(image.code), `${at}: ${image.code}: ${image.message}`)
    else if (image instanceof Error) t.fail(`${at}: ${inspect(image)}`)
    else await (image as Awaited<ReturnType<typeof openImage>>).close()
    for (const look of [imageInfo, checkImage]) {
      const found: unknown = await look(path).catch((error: unknown) => error)
      if (found instanceof Error) t.true(found instanceof Qcow2Error && codes.has(found.code), inspect(found))
    }
  }
})
