import test from 'ava'
import { isNear } from '../../lib/cli/help.js'
import { verbs } from '../../lib/cli/verbs.js'
import { runCli } from '../support/cli.js'
import { makeFolder } from '../support/temp-folder.js'

test('a verb is near if one letter is wrong, missing, too many or misplaced', (t) => {
  for (const word of ['crete', 'creaate', 'craete', 'creatw', 'cre']) t.true(isNear(word, 'create'), word)
  for (const word of ['c', 'info', 'erase', 'creation!', '']) t.false(isNear(word, 'create'), word)
})

test('a verb that there is not gets exit code 1, and the one that was meant', async (t) => {
  const folder = await makeFolder(t)
  t.deepEqual(await runCli(['conver'], folder), {
    code: 1,
    stdout: '',
    stderr:
      "qcow2: Command not found: conver\nqcow2: Did you mean 'convert'?\nTry 'qcow2 --help' for more information\n",
  })
})

test('--help lists all verbs, and --version is that of the package', async (t) => {
  const folder = await makeFolder(t)
  const help = await runCli(['--help'], folder)
  t.is(help.code, 0)
  for (const name of Object.keys(verbs)) t.regex(help.stdout, new RegExp(`^  ${name} `, 'm'))
  const version = await runCli(['-V'], folder)
  t.regex(version.stdout, /^qcow2 version \d+\.\d+\.\d+\n$/)
})

for (const name of Object.keys(verbs)) {
  test(`qcow2 ${name} --help explains every option of its syntax`, async (t) => {
    const folder = await makeFolder(t)
    const { code, stdout, stderr } = await runCli([name, '--help'], folder)
    t.is(code, 0)
    t.is(stderr, '')
    const [syntax = '', ...rest] = stdout.split('\n\n')
    t.true(syntax.startsWith(`usage: qcow2 ${name} `))
    for (const [, option = ''] of syntax.matchAll(/\[(--?[A-Za-z-]+)/g)) {
      t.true(
        rest.some((part) => part.includes(`  ${option} `)),
        option,
      )
    }
  })
}
