import { writeFile } from 'node:fs/promises'
import { inspect } from 'node:util'
import { join } from 'node:path'
import test from 'ava'
import { encryptionOf, namedSecret, secretsOf } from '../../lib/cli/secrets.js'
import { makeFolder } from '../support/temp-folder.js'

const text = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString()

test('a secret comes as text, from a file, or as base64', async (t) => {
  const file = join(await makeFolder(t), 'secret')
  await writeFile(file, 'with a newline\n')
  const secrets = secretsOf([
    'secret,id=a,data=one,,two',
    `secret,id=b,file=${file}`,
    'secret,id=c,data=c2VjcmV0,format=base64',
  ])
  t.deepEqual(
    ['a', 'b', 'c'].map((id) => text(secrets.get(id))),
    ['one,two', 'with a newline\n', 'secret'],
  )
})

test('what is wrong with a secret is told without telling it', (t) => {
  for (const [object, message] of [
    ['secret,id=a,data=shibboleth,keyid=b', /encrypted themselves/],
    ['secret,id=a,data=shibboleth!,format=base64', /invalid characters/],
    ['secret,id=a,data=shibboleth,file=x', /mutually exclusive/],
    ['secret,data=shibboleth', /'id' is missing/],
  ] as const) {
    const error = t.throws(() => secretsOf([object]), { name: 'UsageError', message })
    t.notRegex(inspect(error), /shibboleth(?!')/)
  }
})

test('every image of a chain has the secret that is named for it', async (t) => {
  const secrets = secretsOf(['secret,id=a,data=top', 'secret,id=b,data=below'])
  const keySecrets = new Map([
    [0, 'a'],
    [1, 'b'],
    [2, 'c'],
  ])
  const { encryption } = encryptionOf({ keySecrets }, secrets)
  const ask = (depth: number): Uint8Array => {
    const passphrase = encryption?.passphrase
    if (typeof passphrase !== 'function') throw new Error('not asked')
    return passphrase({ path: 'disk', depth }) as Uint8Array
  }
  t.is(text(ask(0)), 'top')
  t.is(text(ask(1)), 'below')
  t.throws(() => ask(2), { code: 'ERR_PASSPHRASE_REQUIRED', message: "No secret with id 'c'" })
  t.throws(() => ask(3), { code: 'ERR_PASSPHRASE_REQUIRED', message: /is encrypted/ })
  t.deepEqual(encryptionOf({ keySecrets: new Map() }, secrets), {})
  t.throws(() => namedSecret('z', secrets), { message: "No secret with id 'z'" })
})
