import { addon } from '../../../lib/native/addon.js'
import type { Qcow2Error } from '../../../lib/base/errors.js'

/** Loads the addon, or prints why not. */
try {
  process.stdout.write(JSON.stringify({ abi: addon().abi }))
} catch (error) {
  const { code, message } = error as Qcow2Error
  process.stdout.write(JSON.stringify({ code, message }))
}
