import { openImage } from '../../lib/image/open.js'

/** Write every other cluster of an image: `node write-stripes.js IMAGE`. */
await using image = await openImage(process.argv[2] ?? '')
for (let offset = 0; offset < image.size; offset += 2 * image.clusterSize) {
  await image.write(new Uint8Array(image.clusterSize).fill(1), offset)
}
