import { checkOptions } from '../base/options.js'
import { checkLocation, type ImageLocation, nameOf } from '../image/location.js'
import { openImage } from '../image/open.js'
import { filesOf, type MapOptions, mapSchema } from './map.js'
import { MapCells } from './map-cells.js'
import { mapSvg, mostCells } from './map-svg.js'

/** A picture, and what it is made of. */
export type DrawnMap = {
  /** An SVG document of its own: it refers to nothing outside. */
  readonly svg: string
  /** The files of the layers, the image's first; of a layer with a data file that one. */
  readonly files: readonly string[]
}

/**
 * A picture of how a disk is stored, through all backing files, as SVG: cells in the order of the guest, by what they hold and which layer says so. However large the
 * disk is, the picture has at most some thousands of cells; one that holds several things shows their shares.
 * @param options  as for mapImage; what of the range lies behind the end of the disk is left out
 * @throws as openImage
 */
export async function drawMap(source: ImageLocation, options?: MapOptions): Promise<DrawnMap> {
  const location = checkLocation('drawMap', source)
  const { offset = 0, length, ...given } = checkOptions('drawMap', options, mapSchema)
  const image = await openImage(location, { readOnly: true, ...given })
  try {
    const { size } = image
    const start = Math.min(offset, size)
    const cells = new MapCells(start, Math.min(length ?? size, size - start), mostCells)
    if (cells.length > 0) {
      for await (const extent of image.extents({ offset: start, length: cells.length })) {
        given.signal?.throwIfAborted()
        cells.add(extent)
      }
    }
    const files = filesOf(image)
    return { svg: mapSvg(cells, { image: nameOf(location), size, files }), files }
  } finally {
    await image.close()
  }
}
