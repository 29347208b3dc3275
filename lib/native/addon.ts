import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { Qcow2Error } from '../base/errors.js'
import type { NativeAddon } from './types.js'

/** Compared with the number in native/addon.cc: a binary left over from another version is refused, not believed. */
const expectedAbi = 12

/** From dist/lib/native/ to the folder of package.json. */
const packageRoot = unpackedRoot(fileURLToPath(new URL('../../..', import.meta.url)), existsSync)

let loaded: NativeAddon | undefined

/**
 * The addon, loaded on first use, once in each thread that asks for it.
 *
 * It is looked for as node-gyp-build does: a build of one's own (build/Release), then prebuilds/<platform>-<arch>;
 * both below the folder that the environment variable QCOW2_PREBUILD names, if it is set.
 * @throws ERR_ADDON_NOT_LOADED  there is none for this machine, or it belongs to another version
 * @throws ERR_OUT_OF_MEMORY
 */
export function addon(): NativeAddon {
  loaded ??= load()
  return loaded
}

function load(): NativeAddon {
  const require = createRequire(import.meta.url)
  const findAndLoad = require('node-gyp-build') as (folder: string) => NativeAddon
  let found: NativeAddon
  try {
    found = findAndLoad(packageRoot)
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ERR_OUT_OF_MEMORY') {
      throw new Qcow2Error('ERR_OUT_OF_MEMORY', 'Out of memory: the native addon cannot begin', { cause })
    }
    throw notLoaded('none could be loaded', cause)
  }
  if (found.abi !== expectedAbi) {
    throw notLoaded(
      `the one found is of another version: it says ${found.abi}, this package needs ${expectedAbi}`,
    )
  }
  return found
}

function notLoaded(what: string, cause?: unknown): Qcow2Error {
  const folder = process.env['QCOW2_PREBUILD'] ?? packageRoot
  const message = [
    `The native addon of qcow2 is needed, and ${what}.`,
    `  looked in: ${folder} (build/Release, then prebuilds/${process.platform}-${process.arch})`,
    `  for: ${process.platform} ${process.arch}, Node ${process.versions.node}`,
    ...(cause instanceof Error ? [`  loader: ${cause.message.trim().replaceAll('\n', ' ')}`] : []),
    'Build it with `npm rebuild qcow2`, or `npm run build:native` in the package; both need a C++17 compiler, make and Python.',
  ].join('\n')
  return new Qcow2Error('ERR_ADDON_NOT_LOADED', message, { path: folder, cause })
}

/**
 * In an Electron application the package may lie in an archive; a native library is loaded from beside it, where the
 * packager has unpacked it.
 * @param root    folder of package.json
 * @param exists  whether there is something at a path
 */
export function unpackedRoot(root: string, exists: (path: string) => boolean): string {
  const unpacked = root.replace(/([\\/])app\.asar([\\/])/, '$1app.asar.unpacked$2')
  return unpacked !== root && exists(unpacked) ? unpacked : root
}
