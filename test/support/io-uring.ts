import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Qcow2Error } from '../../lib/base/errors.js'
import { BlockQueue } from '../../lib/queue/block-queue.js'

/** Whether this process may have an io_uring; what needs one is skipped elsewhere. */
export const hasRing = await findOut()

async function findOut(): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'qcow2-ring-'))
  try {
    const path = join(folder, 'file')
    await writeFile(path, '')
    const options = { readOnly: true, direct: true, syncPolicy: 'never', aio: 'io_uring' } as const
    await (await BlockQueue.open(path, options)).close()
    return true
  } catch (error) {
    if (error instanceof Qcow2Error && error.code === 'ERR_NOT_SUPPORTED') return false
    throw error
  } finally {
    await rm(folder, { recursive: true })
  }
}
