import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { transform } from 'esbuild'
import { type CliOutcome, runCommand } from './cli.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const thisPlatform = `prebuilds/${process.platform}-${process.arch}`

/** npm's own program: other versions of Node run it too. */
function npmProgram(): string {
  const folder = (process.env['PATH'] ?? '').split(':').find((name) => existsSync(join(name, 'npm')))
  if (folder === undefined) throw new Error('there is no npm on the PATH')
  return realpathSync(join(folder, 'npm'))
}

async function succeed(words: readonly string[], folder: string): Promise<string> {
  const outcome = await runCommand(words, folder)
  if (outcome.code !== 0) throw new Error(`${words.join(' ')}: ${outcome.stdout}${outcome.stderr}`)
  return outcome.stdout
}

async function pack(from: string, to: string): Promise<string> {
  const options = ['--ignore-scripts', '--json', '--pack-destination', to]
  const [packed] = JSON.parse(await succeed(['npm', 'pack', ...options], from)) as { filename: string }[]
  return join(to, packed?.filename ?? '')
}

/**
 * The tarball of the package.
 * @param addons  'prebuilt': what is in prebuilds/, if that fits this machine, else as 'built': that of build/Release alone, which is of this
 *                version; 'none': the sources alone
 */
export async function packPackage(folder: string, addons: 'prebuilt' | 'built' | 'none'): Promise<string> {
  const work = join(folder, addons)
  await mkdir(work)
  const plain = await pack(root, work)
  await succeed(['tar', 'xzf', plain, '-C', work], work)
  const unpacked = join(work, 'package')
  const place = join(unpacked, thisPlatform)
  const isThere = addons === 'prebuilt' && existsSync(place)
  if (!isThere) await succeed(['find', join(unpacked, 'prebuilds'), '-name', '*.node', '-delete'], work)
  if (!isThere && addons !== 'none') {
    await mkdir(place, { recursive: true })
    await copyFile(join(root, 'build/Release/qcow2.node'), join(place, 'node.napi.node'))
  }
  return pack(unpacked, folder)
}

/** An empty project of somebody who has Node and npm, but no compiler. */
export class Consumer {
  readonly folder: string
  readonly #around: readonly string[]

  private constructor(folder: string, around: readonly string[]) {
    this.folder = folder
    this.#around = around
  }

  /** @param node  its program */
  static async make(folder: string, node: string = process.execPath): Promise<Consumer> {
    const programs = join(folder, 'programs')
    await mkdir(programs, { recursive: true })
    await symlink(node, join(programs, 'node'))
    await symlink('/bin/sh', join(programs, 'sh'))
    await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true }))
    const variables = [`PATH=${programs}`, 'LC_ALL=C', `HOME=${process.env['HOME'] ?? folder}`]
    return new Consumer(folder, ['/usr/bin/env', '-i', ...variables])
  }

  /** `npm install TARBALL`, with further options. */
  install(tarball: string, ...options: readonly string[]): Promise<CliOutcome> {
    const quick = ['--no-audit', '--no-fund', '--prefer-offline']
    return this.node(npmProgram(), 'install', ...quick, ...options, tarball)
  }

  node(...words: readonly string[]): Promise<CliOutcome> {
    return runCommand([...this.#around, join(this.folder, 'programs/node'), ...words], this.folder)
  }

  /** Run the first example of the README; `await using` is compiled away. */
  async readmeExample(): Promise<CliOutcome> {
    const { code } = await transform(readmeExample(), { loader: 'ts', format: 'esm', target: 'es2022' })
    await writeFile(join(this.folder, 'readme.mjs'), code)
    return this.node('readme.mjs')
  }
}

/** The first example of the README, in TypeScript. */
export function readmeExample(): string {
  const [, example = ''] = /```ts\n([^]*?)```/.exec(readFileSync(join(root, 'README.md'), 'utf8')) ?? []
  return example
}

/** Where `name` is installed in a consumer's project. */
export const installed = ({ folder }: Consumer, name = 'qcow2'): string => join(folder, 'node_modules', name)
