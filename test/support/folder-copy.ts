import { lstatSync, readdirSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand } from './cli.js'

/** Of each name below a folder, what is different after its file was written, replaced, or given other rights. */
type Marks = ReadonlyMap<string, string>

/** A copy of a folder that can be made again and again, at the cost of the files that have changed. */
export class FolderCopy {
  readonly path: string
  readonly #original: string
  #marks: Marks = new Map()

  private constructor(original: string, path: string) {
    this.#original = original
    this.path = path
  }

  /** @param path  does not exist yet */
  static async make(original: string, path: string): Promise<FolderCopy> {
    await copyAll([original], original, path)
    const copy = new FolderCopy(original, path)
    copy.#marks = marksOf(path)
    return copy
  }

  /** Make it what the original is. */
  async restore(): Promise<void> {
    const now = marksOf(this.path)
    // What is new goes first: it may stand where something else has to.
    for (const name of now.keys()) {
      if (!this.#marks.has(name)) await rm(join(this.path, name), { recursive: true, force: true })
    }
    const changed = [...this.#marks].filter(([name, mark]) => now.get(name) !== mark).map(([name]) => name)
    if (changed.length === 0) return
    for (const name of changed) await rm(join(this.path, name), { recursive: true, force: true })
    await copyAll(['--parents', ...changed], this.#original, this.path)
    this.#marks = marksOf(this.path)
  }
}

/** As they are, with their holes and times. */
async function copyAll(names: readonly string[], from: string, to: string): Promise<void> {
  const { code, stderr } = await runCommand(['cp', '-a', ...names, to], from)
  if (code !== 0) throw new Error(stderr)
}

function marksOf(folder: string): Marks {
  const marks = new Map<string, string>()
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const stats = lstatSync(join(folder, name), { bigint: true })
    // A copy has the time of its original, so that a write in the same tick shows as well.
    const mark = `${stats.ino} ${stats.size} ${stats.mtimeNs} ${stats.ctimeNs}`
    marks.set(name, stats.isDirectory() ? 'folder' : mark)
  }
  return marks
}
