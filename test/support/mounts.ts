import { execFileSync } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { makeFolder } from './temp-folder.js'

/** Whether this process may mount file systems: it must be root, and the container must allow it. */
export function mayMount(): boolean {
  try {
    execFileSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'none', '/mnt'], { stdio: 'ignore' })
    return process.getuid?.() === 0
  } catch {
    return false
  }
}

/**
 * A small file system of its own, unmounted when the test is over.
 * @param kind  'tmpfs' in memory; 'ext4' in a file
 * @returns its folder, and a function that mounts it anew with other options
 */
export async function mountSmall(
  t: ExecutionContext,
  kind: 'tmpfs' | 'ext4',
  megabytes: number,
): Promise<{ folder: string; remount: (options: string) => void }> {
  const outer = await makeFolder(t)
  const folder = join(outer, 'mounted')
  await mkdir(folder)
  if (kind === 'tmpfs') execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'none', folder])
  else {
    const image = join(outer, 'file-system')
    execFileSync('mke2fs', ['-q', '-t', 'ext4', '-O', '^has_journal', '-m', '0', image, `${megabytes}M`])
    execFileSync('mount', ['-o', 'loop', image, folder])
  }
  t.teardown(() => execFileSync('umount', ['-l', folder]))
  return { folder, remount: (options) => void execFileSync('mount', ['-o', `remount,${options}`, folder]) }
}
