import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'

/** Where Linux keeps files in memory: syncs cost nothing there. */
const inMemory = '/dev/shm'

/**
 * An empty folder that is removed with all that is in it when the test is over.
 * @param options.fast  in memory where there is such a place: for many small images
 * @returns its path
 */
export async function makeFolder(t: ExecutionContext, options: { fast?: boolean } = {}): Promise<string> {
  const parent = options.fast === true && existsSync(inMemory) ? inMemory : tmpdir()
  const folder = await mkdtemp(join(parent, 'qcow2-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}
