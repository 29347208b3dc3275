import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'

/** An empty folder that is removed with all that is in it when the test is over. @returns its path */
export async function makeFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'qcow2-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}
