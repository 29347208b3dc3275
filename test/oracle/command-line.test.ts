import { mkdir, readdir, stat, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { cliPath, type CliOutcome, runCommand } from '../support/cli.js'
import { makeFixtures } from '../support/cli-fixtures.js'
import { readingCases, writingCases } from '../support/cli-cases.js'
import { qemuVersion } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

// The texts of other versions differ; the format does not.
const pinned = qemuVersion() === '7.2'
const oracle = pinned ? test : test.skip
if (!pinned) {
  test('the stock tool of this machine is not 7.2', (t) => {
    t.log(`SKIPPED: comparisons with qemu-img 7.2; here it is ${qemuVersion() ?? 'not installed'}`)
    t.pass()
  })
}

/** A link that calls our program by the other's name: messages then begin alike. */
async function makeLink(folder: string): Promise<readonly string[]> {
  await mkdir(join(folder, 'bin'))
  await symlink(cliPath, join(folder, 'bin', 'qemu-img'))
  return [process.execPath, join(folder, 'bin', 'qemu-img')]
}

/** 7.2 says this twice in a row; ours says it once. */
const once = (text: string): string => text.replace(/(Could not open '(?:[^'\n]*)': )\1/g, '$1')

/** What differs, readable in a report; nothing if all is alike. */
function difference(args: readonly string[], ours: CliOutcome, theirs: CliOutcome): readonly unknown[] {
  const [actual, expected] = [ours, theirs].map((outcome) => ({ ...outcome, stderr: once(outcome.stderr) }))
  return JSON.stringify(actual) === JSON.stringify(expected)
    ? []
    : [{ args: args.join(' '), actual, expected }]
}

const verbs = new Set(readingCases.map(([verb = '(none)']) => verb))

for (const verb of verbs) {
  oracle(`${verb}: prints what qemu-img prints where nothing is written, and exits alike`, async (t) => {
    t.timeout(300_000)
    const folder = await makeFolder(t)
    const files = join(folder, 'files')
    await mkdir(files)
    await makeFixtures(files)
    const link = await makeLink(folder)
    const differences: unknown[] = []
    for (const args of readingCases.filter(([first = '(none)']) => first === verb)) {
      const ours = await runCommand([...link, ...args], files)
      const theirs = await runCommand(['qemu-img', ...args], files)
      differences.push(...difference(args, ours, theirs))
    }
    t.deepEqual(differences, [])
  })
}

for (const [part, cases] of parts(writingCases, 4).entries()) {
  oracle(
    `commands that write print the same, exit alike, and leave the like behind (part ${part + 1})`,
    async (t) => {
      t.timeout(600_000)
      const folder = await makeFolder(t)
      const link = await makeLink(folder)
      const fixtures = join(folder, 'fixtures')
      await mkdir(fixtures)
      await makeFixtures(fixtures)
      const differences: unknown[] = []
      for (const commands of cases) {
        const [ourFolder, theirFolder] = [join(folder, 'ours'), join(folder, 'theirs')]
        await runCommand(['cp', '-a', fixtures, ourFolder], folder)
        await runCommand(['cp', '-a', fixtures, theirFolder], folder)
        for (const args of commands) {
          const ours = await runCommand([...link, ...args], ourFolder)
          const theirs = await runCommand(['qemu-img', ...args], theirFolder)
          differences.push(...difference(args, ours, theirs))
        }
        const [actual, expected] = [
          await describe(ourFolder, fixtures),
          await describe(theirFolder, fixtures),
        ]
        if (JSON.stringify(actual) !== JSON.stringify(expected))
          differences.push({ commands, actual, expected })
        await runCommand(['rm', '-r', ourFolder, theirFolder], folder)
      }
      t.deepEqual(differences, [])
    },
  )
}

/** Deal out a list to `count` lists, which run side by side. */
function parts<T>(list: readonly T[], count: number): T[][] {
  return Array.from({ length: count }, (_, part) => list.filter((_item, index) => index % count === part))
}

/** What the stock tool says of every file that is new or has changed. */
async function describe(folder: string, before: string): Promise<unknown> {
  const found: unknown[] = []
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name)
    if (!(await stat(path).catch(() => undefined))?.isFile()) continue
    if ((await runCommand(['cmp', '-s', join(before, name), path], folder)).code === 0) continue
    const info = await runCommand(['qemu-img', 'info', '--output=json', name], folder)
    const map = await runCommand(['qemu-img', 'map', '--output=json', name], folder)
    const check = await runCommand(['qemu-img', 'check', name], folder)
    const qcow2 = info.stdout.includes('"format": "qcow2"')
    found.push({
      name,
      // Which bytes a file system really stores is not the tool's doing.
      info: info.stdout.replace(/"actual-size": \d+/, ''),
      map: map.stdout,
      check,
      length: qcow2 ? (await stat(path)).size : undefined,
    })
  }
  return found
}
