/** Which sectors of a disk have changed since somebody looked. */
export class ChangedSectors {
  /** The first `count` are the sectors, each once. */
  readonly sectors: Int32Array
  count = 0
  readonly #isIn: Uint8Array

  /** @param most  sectors of the disk */
  constructor(most: number) {
    this.sectors = new Int32Array(most)
    this.#isIn = new Uint8Array(most)
  }

  add(sector: number): void {
    if (this.#isIn[sector] !== 0) return
    this.#isIn[sector] = 1
    this.sectors[this.count++] = sector
  }

  clear(): void {
    for (let index = 0; index < this.count; index++) this.#isIn[this.sectors[index] as number] = 0
    this.count = 0
  }
}
