import { mkdir, mkdtemp, readdir, rm, stat, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test from 'ava'
import { cliPath, type CliOutcome, runCommand, runCommandsInOne } from '../support/cli.js'
import { makeFixtures } from '../support/cli-fixtures.js'
import { amendReadingCases, amendWritingCases } from '../support/amend-cases.js'
import { blockReadingCases, blockWritingCases } from '../support/block-cases.js'
import { chainReadingCases, chainWritingCases, tooLongName } from '../support/chain-cases.js'
import { readingCases, writingCases } from '../support/cli-cases.js'
import { encryptionReadingCases, encryptionWritingCases } from '../support/encryption-cases.js'
import { FolderCopy } from '../support/folder-copy.js'
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

/** The command that runs a link to our program. */
type Link = readonly [node: string, path: string]

/** A link that calls our program by the other's name: messages then begin alike. */
async function makeLink(folder: string): Promise<Link> {
  await mkdir(join(folder, 'bin'))
  await symlink(cliPath, join(folder, 'bin', 'qemu-img'))
  return [process.execPath, join(folder, 'bin', 'qemu-img')]
}

/** Commands of which our message says more, or says it of another file; exit code and standard output must be alike. */
const otherWords = new Set([
  'create -f qcow2 -b a.raw -F qcow2 new.qcow2 1M',
  ...['info', 'check', 'map'].flatMap((verb) => [
    `${verb} truncated.qcow2`,
    `${verb} --output=json truncated.qcow2`,
  ]),
  'info -f qcow2 truncated.qcow2',
  'check -r leaks corrupt.qcow2',
  'check -r leaks --output=json corrupt.qcow2',
  tooLongName.join(' '),
])

/** How much of a file a file system stores is not the tool's doing. */
function withoutHostSizes(text: string): string {
  return text
    .replace(/^Run completed in [\d.]+ seconds/gm, 'Run completed')
    .replace(/^disk size: .*$/gm, 'disk size')
    .replace(/"actual-size": \d+/g, '"actual-size"')
}

/** Of an image that was copied, in which order its clusters were written is not either. */
function withoutPlaces(text: string): string {
  return text.replace(/, "offset": \d+/g, '').replace(/[\d.]+% fragmented/, 'fragmented')
}

/** What has to be alike. */
function comparable(args: string, { code, stdout, stderr }: CliOutcome): CliOutcome {
  return {
    code,
    // How far it is when progress is shown is not the same in any two runs.
    stdout: withoutHostSizes(stdout.replace(/(\r {4}\(\d+\.\d\d\/100%\))+(?=\r)/g, '')),
    // 7.2 says this twice in a row, ours says it once; and it leaves out newlines.
    stderr: otherWords.has(args)
      ? ''
      : stderr
          .replace(/(Could not open '(?:[^'\n]*)': )\1/g, '$1')
          .replace(/(Detected format of \w+\.|on the image file to fix\.)(?!\n)/g, '$1\n'),
  }
}

/** What differs, readable in a report; nothing if all is alike. */
function difference(words: readonly string[], ours: CliOutcome, theirs: CliOutcome): readonly unknown[] {
  const args = words.join(' ')
  const [actual, expected] = [comparable(args, ours), comparable(args, theirs)]
  return JSON.stringify(actual) === JSON.stringify(expected) ? [] : [{ args, actual, expected }]
}

/** Where the fixtures are, and what runs our program by the other's name. */
let fixtures = ''
let link: Link = ['', '']

test.before(async () => {
  if (!pinned) return
  const folder = await mkdtemp(join(tmpdir(), 'qcow2-test-'))
  fixtures = join(folder, 'fixtures')
  await mkdir(fixtures)
  await makeFixtures(fixtures)
  link = await makeLink(folder)
})

test.after.always(async () => {
  if (fixtures !== '') await rm(dirname(fixtures), { recursive: true, force: true })
})

const allReadingCases = [
  ...readingCases,
  ...chainReadingCases,
  ...amendReadingCases,
  ...blockReadingCases,
  ...encryptionReadingCases,
]

for (const verb of new Set(allReadingCases.map(([first = '(none)']) => first))) {
  oracle(`${verb}: prints what qemu-img prints where nothing is written, and exits alike`, async (t) => {
    // All verbs run at the same time.
    t.timeout(allReadingCases.length * 2000)
    // A copy for each: images are locked while somebody looks at them.
    const folder = join(await makeFolder(t), 'files')
    await runCommand(['cp', '-a', fixtures, folder], dirname(fixtures))
    const cases = allReadingCases.filter(([first = '(none)']) => first === verb)
    const outcomes = await runCommandsInOne(link[1], cases, folder)
    const differences: unknown[] = []
    for (const [index, args] of cases.entries()) {
      const theirs = await runCommand(['qemu-img', ...args], folder)
      const ours = [...outcomes.slice(index, index + 1)]
      // One of each verb as a process of its own, as users start it; all those that write are.
      if (index === 0) ours.push(await runCommand([...link, ...args], folder))
      for (const outcome of ours) differences.push(...difference(args, outcome, theirs))
    }
    t.deepEqual(differences, [])
  })
}

for (const [part, cases] of parts(
  [
    ...writingCases,
    ...chainWritingCases,
    ...amendWritingCases,
    ...blockWritingCases,
    ...encryptionWritingCases,
  ],
  3,
).entries()) {
  oracle(
    `commands that write print the same, exit alike, and leave the like behind (part ${part + 1})`,
    async (t) => {
      t.timeout(cases.length * 20_000)
      const folder = await makeFolder(t)
      const [ourFolder, theirFolder] = [join(folder, 'ours'), join(folder, 'theirs')]
      const copies = [
        await FolderCopy.make(fixtures, ourFolder),
        await FolderCopy.make(fixtures, theirFolder),
      ]
      const differences: unknown[] = []
      for (const commands of cases) {
        let failed = false
        for (const args of commands) {
          const ours = await runCommand([...link, ...args], ourFolder)
          const theirs = await runCommand(['qemu-img', ...args], theirFolder)
          differences.push(...difference(args, ours, theirs))
          failed ||= theirs.code !== 0
        }
        const [actual, expected] = [await describe(ourFolder), await describe(theirFolder)]
        // Ours leaves nothing behind when it fails.
        if (!failed && JSON.stringify(actual) !== JSON.stringify(expected)) {
          differences.push({ commands, actual, expected })
        }
        for (const copy of copies) await copy.restore()
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
async function describe(folder: string): Promise<unknown> {
  const found: unknown[] = []
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name)
    const stats = await stat(path).catch(() => undefined)
    if (stats?.isFile() !== true || (await alike(join(fixtures, name), path))) continue
    const info = await runCommand(['qemu-img', 'info', '--output=json', name], folder)
    const common = { name, size: stats.size, info: withoutHostSizes(info.stdout) }
    if (info.stdout.includes('"format": "qcow2"')) {
      const map = await runCommand(['qemu-img', 'map', '--output=json', name], folder)
      const check = await runCommand(['qemu-img', 'check', name], folder)
      found.push({
        ...common,
        map: withoutPlaces(map.stdout),
        check: withoutPlaces(check.stdout + check.stderr),
      })
    } else {
      found.push({ ...common, sum: await runCommand(['sha256sum', name], folder) })
    }
  }
  return found
}

async function alike(before: string, after: string): Promise<boolean> {
  const [first, second] = await Promise.all([before, after].map((path) => stat(path).catch(() => undefined)))
  // A copy has the time of its original.
  return (
    first !== undefined &&
    second !== undefined &&
    first.mtimeMs === second.mtimeMs &&
    first.size === second.size
  )
}
