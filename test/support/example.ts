import { cp, mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'
import { makeFolder } from './temp-folder.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))

/** examples/vm-manager as it is after `npm install`, with this package. @returns its folder, and an empty one for disks */
export async function installExample(t: ExecutionContext): Promise<{ app: string; folder: string }> {
  const place = await makeFolder(t)
  const [app, folder] = [join(place, 'app'), join(place, 'disks')]
  await cp(join(root, 'examples/vm-manager'), app, { recursive: true })
  await mkdir(join(app, 'node_modules'), { recursive: true })
  await mkdir(folder)
  await symlink(root, join(app, 'node_modules/qcow2'))
  return { app, folder }
}
