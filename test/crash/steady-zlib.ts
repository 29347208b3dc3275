import { syncBuiltinESMExports } from 'node:module'
import zlib from 'node:zlib'

type Done = (error: Error | null, bytes?: Uint8Array) => void
type Work = (bytes: Uint8Array, options: zlib.ZlibOptions, done: Done) => void

/**
 * Importing this has zlib do its work at once, in the order of the calls: its threads end in another order each time, and a run would not be the
 * same again.
 */
function atOnce(work: (bytes: Uint8Array, options: zlib.ZlibOptions) => Uint8Array): Work {
  return (bytes, options, done) => {
    let result: Uint8Array
    try {
      result = work(bytes, options)
    } catch (error) {
      done(error as Error)
      return
    }
    done(null, result)
  }
}

Object.assign(zlib, { deflateRaw: atOnce(zlib.deflateRawSync), inflateRaw: atOnce(zlib.inflateRawSync) })
syncBuiltinESMExports()
