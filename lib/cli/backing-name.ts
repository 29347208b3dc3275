import { dirname, isAbsolute, resolve } from 'node:path'
import { hasProtocol, nameSeenFrom } from '../image/path-names.js'
import { parseImageName } from './image-name.js'
import { UsageError } from './usage-error.js'

/**
 * What an image is to store for the backing file that a user names: always a plain path, since nothing else is followed that an image says. `file:` and `json:`
 * are for users: a relative name in them counts from where the program runs, as in the stock tool, which stores them as they are.
 * @param image  path of the image that refers to it
 * @param format  what -F says
 * @throws UsageError  a protocol that there is not, another format than -F's, or properties that no path can say
 */
export function storedBackingName(text: string, image: string, format: string | undefined): string {
  if (!hasProtocol(text)) return text
  const name = parseImageName(text, { format: undefined, imageOptions: false })
  if (
    name.keySecrets.size > 0 ||
    name.chain.length > 0 ||
    name.dataFile !== undefined ||
    name.readOnly ||
    name.forceShare
  ) {
    throw new UsageError(`An image can store no more than the path of its backing file, not all of '${text}'`)
  }
  if (format !== undefined && name.format !== undefined && name.format !== format) {
    throw new UsageError(
      `The backing file's format is '${name.format}' in its name and '${format}' beside it`,
    )
  }
  if (isAbsolute(name.path)) return name.path
  return nameSeenFrom(resolve(dirname(image)), resolve(name.path))
}
