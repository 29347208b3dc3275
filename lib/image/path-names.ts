import { posix, win32 } from 'node:path'

/** Whether paths have drives and backslashes here. Told to the functions below, so that both kinds can be tested anywhere. */
export const isWindows = process.platform === 'win32'

/**
 * QEMU's rule: what stands before a colon that no slash precedes is a protocol, `json` among them; on Windows apart from the drive of an absolute path.
 * @returns undefined for a plain path
 */
export function protocolOf(name: string, windows = isWindows): string | undefined {
  if (!windows) return /^([^/:]*):/.exec(name)?.[1]
  return /^([^/\\:]*):/.exec(name.replace(/^[A-Za-z]:(?=[/\\])/, ''))?.[1]
}

export function hasProtocol(name: string, windows = isWindows): boolean {
  return protocolOf(name, windows) !== undefined
}

/** A relative name is relative to the image that has it: the name spelt with the image's folder, as QEMU shows it. */
export function besideImage(image: string, name: string, windows = isWindows): string {
  const paths = windows ? win32 : posix
  if (paths.isAbsolute(name) || hasProtocol(name, windows)) return name
  const folderEnd = Math.max(image.lastIndexOf('/'), windows ? image.lastIndexOf('\\') : -1)
  return image.slice(0, folderEnd + 1) + name
}

/**
 * How an image in one place names a file in another: alone if they are neighbours, and as other systems can read it.
 * @param folder  where the image is
 */
export function nameSeenFrom(folder: string, file: string, windows = isWindows): string {
  const paths = windows ? win32 : posix
  const name = paths.relative(folder, file)
  // Upwards it depends on where both stay; and to another drive there is no way.
  if (name.startsWith('..') || paths.isAbsolute(name)) return file
  const portable = windows ? name.replaceAll('\\', '/') : name
  // A colon would make it a protocol.
  return hasProtocol(portable, windows) ? `./${portable}` : portable
}

/** A server's name, or a device's: on Windows looking at such a file already tells somebody of it. */
export function isNetworkName(path: string, windows = isWindows): boolean {
  return windows && /^[/\\]{2}/.test(path)
}
