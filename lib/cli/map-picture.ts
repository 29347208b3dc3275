import { open, stat, writeFile } from 'node:fs/promises'
import { writeTarget } from '../image/atomic-target.js'
import { type FileIdentity, identifyFile } from '../image/image-file.js'
import type { MapOptions } from '../operations/map.js'
import { interruptible } from './interrupts.js'
import { UsageError } from './usage-error.js'

/**
 * Draw the map of an image into a file, which is there whole or not at all. What is there and is no picture stays.
 * @throws UsageError  the target is the image, a file of its chain, or anything but a picture; as drawMap
 */
export async function writePicture(target: string, image: string, options: MapOptions): Promise<void> {
  await refuseFiles(target, [image])
  await refuseOthers(target)
  const { drawMap } = await import('../operations/draw-map.js')
  await interruptible(async (signal) => {
    const { svg, files } = await drawMap(image, { ...options, signal })
    await refuseFiles(target, files)
    await writeTarget(target, { overwrite: true, locking: true, signal }, (temporary) =>
      writeFile(temporary, svg),
    )
  })
}

/** @throws UsageError  the target is one of these files, under whatever name */
async function refuseFiles(target: string, files: readonly string[]): Promise<void> {
  const identityOf = (path: string): Promise<FileIdentity | undefined> =>
    identifyFile(path).catch(() => undefined)
  const own = await identityOf(target)
  if (own === undefined) return
  for (const file of files) {
    if (own !== (await identityOf(file))) continue
    throw new UsageError(`'${target}' is not replaced by a picture: it is the image or a file that it needs`)
  }
}

/** Enough to see what a file is. */
const lookBytes = 512

/** @throws UsageError  there is something that is no picture */
async function refuseOthers(target: string): Promise<void> {
  const stats = await stat(target).catch(() => undefined)
  // A folder is told of when the picture is written.
  if (stats === undefined || stats.isDirectory()) return
  if (stats.isFile() && (stats.size === 0 || (await looksLikePicture(target)))) return
  throw new UsageError(`'${target}' is not replaced by a picture: it is something else`)
}

async function looksLikePicture(path: string): Promise<boolean> {
  const file = await open(path, 'r')
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(lookBytes), 0, lookBytes, 0)
    return /^(?:\uFEFF)?\s*<(?:svg|\?xml|!--|!DOCTYPE svg)[\s>]/.test(buffer.toString('utf8', 0, bytesRead))
  } finally {
    await file.close()
  }
}
