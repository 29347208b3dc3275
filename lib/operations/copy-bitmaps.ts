import { notSupported, Qcow2Error } from '../base/errors.js'
import type { DiskImage } from '../image/disk-image.js'
import type { ImageFormat } from '../image/probe.js'
import { escapeName } from '../qcow2/header-extensions.js'
import type { DirtyBitmap } from '../queue/format-image.js'

export type CopiedBitmaps = {
  readonly copied: readonly DirtyBitmap[]
  /** Names of those that are inconsistent. */
  readonly skipped: readonly string[]
}

/**
 * Which bitmaps of a source are copied, before anything is written.
 * @param format  of the target
 * @throws ERR_NOT_SUPPORTED        several sources, or a format without bitmaps
 * @throws ERR_BITMAP_INCONSISTENT  one of them cannot be copied, and is not to be skipped
 */
export async function bitmapsToCopy(
  disks: readonly DiskImage[],
  format: ImageFormat,
  wanted: { readonly bitmaps?: boolean; readonly skipBrokenBitmaps?: boolean; readonly compat?: string },
): Promise<CopiedBitmaps> {
  const [source] = disks
  if (wanted.bitmaps !== true || source === undefined) return { copied: [], skipped: [] }
  const { path } = source
  if (disks.length > 1) throw notSupported('Copying bitmaps only possible with single source')
  if (source.format !== 'qcow2') throw notSupported('Source lacks bitmap support', { path })
  const all = await source.bitmaps.list()
  const broken = all.filter(({ inconsistent }) => inconsistent)
  if (broken.length > 0 && wanted.skipBrokenBitmaps !== true) {
    // The last one first, as the stock tool.
    const name = escapeName(broken.at(-1)?.name ?? '')
    throw new Qcow2Error('ERR_BITMAP_INCONSISTENT', `Cannot copy inconsistent bitmap '${name}'`, { path })
  }
  if (format !== 'qcow2' || wanted.compat === '0.10') {
    throw notSupported(`Format driver '${format}' does not support bitmaps`)
  }
  return {
    copied: all.filter(({ inconsistent }) => !inconsistent),
    skipped: broken.map(({ name }) => name).reverse(),
  }
}

/** Copy bitmaps into another image, whose disk is a copy: what they say, and whether they follow the disk. */
export async function copyBitmaps(
  source: DiskImage | undefined,
  bitmaps: readonly DirtyBitmap[],
  target: DiskImage,
): Promise<void> {
  if (source === undefined || bitmaps.length === 0) return
  const existing = (await target.bitmaps.list()).map(({ name }) => name)
  const twice = bitmaps.findLast(({ name }) => existing.includes(name))
  if (twice !== undefined) {
    const name = escapeName(twice.name)
    const what = `Failed to create bitmap ${name}: Bitmap already exists: ${name}`
    throw new Qcow2Error('ERR_BITMAP_EXISTS', what, { path: target.path })
  }
  for (const { name, granularity, enabled } of bitmaps) {
    const failing = (what: string) => (error: unknown) => {
      if (!(error instanceof Qcow2Error)) throw error
      const { code, path } = error
      const context = path === undefined ? {} : { path }
      throw new Qcow2Error(code, `Failed to ${what} bitmap ${escapeName(name)}: ${error.message}`, context)
    }
    await target.bitmaps.add(name, { granularity, disabled: true }).catch(failing('create'))
    await target.bitmaps.merge(name, [{ image: source, name }]).catch(failing('populate'))
    if (enabled) await target.bitmaps.enable(name)
  }
}
