import { execFileSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { makeFolder } from './temp-folder.js'

/** Whether this process may make block devices of files: it must be root, and the container must have some to give. */
export function mayLoop(): boolean {
  try {
    return process.getuid?.() === 0 && execFileSync('losetup', ['--find'], { encoding: 'utf8' }).trim() !== ''
  } catch {
    return false
  }
}

/**
 * A block device over a file, filled with bytes 0xff; it goes when the test is over.
 * @param options.punches  what is punched out of it must be given back: over a file in memory Linux stops doing that once zeros were written
 * @returns its path, as /dev/loop0
 */
export async function makeDevice(
  t: ExecutionContext,
  bytes: number,
  options: { readonly punches?: boolean } = {},
): Promise<string> {
  const file = join(await makeFolder(t, { fast: options.punches !== true }), 'device')
  await writeFile(file, new Uint8Array(bytes).fill(0xff))
  const device = execFileSync('losetup', ['--find', '--show', file], { encoding: 'utf8' }).trim()
  t.teardown(() => execFileSync('losetup', ['--detach', device]))
  return device
}
