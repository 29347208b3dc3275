import { link, realpath, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { makeNamesDurable, temporaryName } from './atomic-target.js'

/** A file that is about to be replaced, under a name of its own as well until it is known whether the new one is kept. */
export type KeptFile = {
  /** It is the file of its name again, durably. */
  readonly putBack: () => Promise<void>
  /** The new one is kept. */
  readonly letGo: () => Promise<void>
}

/** @returns undefined where there is no file of the name, or where a file cannot have two names: then there is no way back */
export async function keepFile(path: string): Promise<KeptFile | undefined> {
  const target = await realpath(path).catch(() => undefined)
  if (target === undefined) return undefined
  const kept = temporaryName(target)
  const isKept = await link(target, kept).then(
    () => true,
    () => false,
  )
  if (!isKept) return undefined
  const letGo = (): Promise<void> => unlink(kept).catch(() => undefined)
  const putBack = async (): Promise<void> => {
    await rename(kept, target)
    // Where it was never replaced, renaming it has done nothing.
    await letGo()
    await makeNamesDurable(dirname(target))
  }
  return { putBack, letGo }
}
