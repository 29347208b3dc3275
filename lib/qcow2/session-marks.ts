import { bitmapPointer } from './bitmap-directory.js'
import { isDataFileRaw } from './data-file.js'
import type { Header } from './header.js'
import type { HeaderChange, HeaderCluster } from './header-cluster.js'
import { autoclear, compatible, incompatible } from './spec.js'
import type { WriteOrdering } from './write-ordering.js'

/**
 * What the header says about a session that changes the image: set before its first change, taken back by a clean close.
 *
 * Autoclear bits go for good where we do not keep up what they promise (mistake 24 of the format's list). Of a raw data file we do, and of bitmaps: see bitmaps.ts. With lazy refcounts the dirty bit
 * comes, so that counts may lag behind what refers to them (E18): whoever opens the image after a crash counts anew.
 */
export class SessionMarks {
  readonly #ordering: WriteOrdering
  readonly #headerCluster: HeaderCluster
  readonly #header: Header
  readonly #isLazy: boolean
  #due: HeaderChange | undefined
  #setting: Promise<void> | undefined

  /** @param header  as found at open */
  constructor(ordering: WriteOrdering, headerCluster: HeaderCluster, header: Header) {
    this.#ordering = ordering
    this.#headerCluster = headerCluster
    this.#header = header
    this.#isLazy = (header.compatibleFeatures & compatible.lazyRefcounts) !== 0n
    const ofDataFile = isDataFileRaw(header) ? header.autoclearFeatures & autoclear.dataFileRaw : 0n
    const kept = ofDataFile | (bitmapPointer(header) === undefined ? 0n : autoclear.bitmaps)
    const isStale = kept !== header.autoclearFeatures
    if (!isStale && !this.#isLazy) return
    this.#due = {
      ...(isStale ? { autoclearFeatures: kept } : {}),
      ...(this.#isLazy ? { incompatibleFeatures: header.incompatibleFeatures | incompatible.dirty } : {}),
    }
  }

  /** Whether the first change has to wait for `set`. */
  get due(): boolean {
    return this.#due !== undefined
  }

  /** Set them, durably (I6). @throws what fails; then they are still due */
  async set(): Promise<void> {
    const change = this.#due
    if (change === undefined) return
    this.#setting ??= this.#ordering.switchHeader(() => this.#headerCluster.change(change))
    try {
      await this.#setting
      if (this.#isLazy) this.#ordering.letCountsLag()
      this.#due = undefined
    } finally {
      this.#setting = undefined
    }
  }

  /** The session is over, and all that it wrote is queued: the dirty bit goes behind the last count. If it goes on after all, the bit is due again. */
  async takeBack(): Promise<void> {
    if (!this.#isLazy || this.due) return
    const header = this.#headerCluster
    this.#due = { incompatibleFeatures: this.#header.incompatibleFeatures | incompatible.dirty }
    // Damage may have been marked meanwhile.
    await this.#ordering.switchHeader(() =>
      header.change({ incompatibleFeatures: header.incompatibleFeatures & ~incompatible.dirty }),
    )
  }
}
