import { Qcow2Error } from '../base/errors.js'
import type { BlockBackend } from '../queue/backend.js'
import type { HeaderCluster } from './header-cluster.js'
import { incompatible } from './spec.js'
import type { WriteOrdering } from './write-ordering.js'

/**
 * The corrupt bit: set when a change meets damage, so that nobody writes to the image again before it has been repaired. What was acknowledged
 * stays, and reads go on. Reading alone sets nothing: it makes nothing worse. qcow2 spec, "Header", incompatible feature bit 1; version 2 has none,
 * and is refused for this session only.
 */
export class CorruptMark {
  readonly #backend: BlockBackend
  readonly #ordering: WriteOrdering
  readonly #header: HeaderCluster
  readonly #version: 2 | 3
  #found: Qcow2Error | undefined
  #setting: Promise<void> | undefined

  constructor(
    { backend, ordering, header }: { backend: BlockBackend; ordering: WriteOrdering; header: HeaderCluster },
    version: 2 | 3,
  ) {
    this.#backend = backend
    this.#ordering = ordering
    this.#header = header
    this.#version = version
  }

  /** @throws ERR_CORRUPT  damage was met before */
  refuse(): void {
    if (this.#found === undefined) return
    const { path } = this.#backend
    const message = `The image '${path}' is not changed any more until it is repaired: ${this.#found.message}`
    throw new Qcow2Error('ERR_CORRUPT', message, { path, cause: this.#found })
  }

  /**
   * Note why a change has failed. Resolves when the bit is durable, if it was damage of this image; or when it cannot be: then the failure
   * is all that is told.
   */
  async note(error: unknown): Promise<void> {
    if (!(error instanceof Qcow2Error) || error.code !== 'ERR_CORRUPT') return
    const isBacking = error.path !== undefined && error.path !== this.#backend.path
    if (isBacking) return
    this.#found ??= error
    if (this.#version === 2) return
    this.#setting ??= this.#ordering
      .switchHeader(() =>
        this.#header.change({
          incompatibleFeatures: this.#header.incompatibleFeatures | incompatible.corrupt,
        }),
      )
      .catch(() => undefined)
    await this.#setting
  }
}
