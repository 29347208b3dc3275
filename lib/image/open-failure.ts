import { Qcow2Error } from '../base/errors.js'
import { escapeName } from '../qcow2/header-extensions.js'

/** Say which image it was that could not be opened, in QEMU's words. What is not ours passes as it is. */
export function openFailure(path: string, error: unknown): unknown {
  if (!(error instanceof Qcow2Error)) return error
  if (
    error.code === 'ERR_ADDON_NOT_LOADED' ||
    error.message.startsWith(`Could not open '${escapeName(path)}'`)
  )
    return error
  const prefix = error.path === undefined || error.path === path ? '' : 'Could not open backing file: '
  const { code, offset, structure, errno } = error
  return new Qcow2Error(code, `Could not open '${escapeName(path)}': ${prefix}${error.message}`, {
    path: error.path ?? path,
    ...(offset === undefined ? {} : { offset }),
    ...(structure === undefined ? {} : { structure }),
    ...(errno === undefined ? {} : { errno }),
    cause: error,
  })
}
