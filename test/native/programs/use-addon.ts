import { addon } from '../../../lib/native/addon.js'
import type { Qcow2Error } from '../../../lib/base/errors.js'

/** Loads the addon, or prints why not. */
try {
  console.log(JSON.stringify({ abi: addon().abi }))
} catch (error) {
  const { code, message } = error as Qcow2Error
  console.log(JSON.stringify({ code, message }))
}
