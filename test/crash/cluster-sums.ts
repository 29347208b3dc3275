/**
 * What a file's clusters are counted for, and how often they are referred to: kept as sums while counts and references come and go.
 */
export class ClusterSums {
  /** Clusters that are wrong, and some that cannot be judged by sums. */
  wrong = 0
  leaks = 0
  leaksInFile = 0
  readonly #stored: Int32Array
  readonly #references: Int32Array
  /** References of active tables with COPIED, and without. */
  readonly #copied: Int32Array
  readonly #plain: Int32Array
  #inFile = 0

  /** @param clusters  the most that the file can have */
  constructor(clusters: number) {
    this.#stored = new Int32Array(clusters)
    this.#references = new Int32Array(clusters)
    this.#copied = new Int32Array(clusters)
    this.#plain = new Int32Array(clusters)
  }

  /** Clusters of the file. */
  get inFile(): number {
    return this.#inFile
  }

  /** Begin anew. */
  forget(inFile: number): void {
    for (const array of [this.#stored, this.#references, this.#copied, this.#plain]) array.fill(0)
    this.wrong = 0
    this.leaks = 0
    this.leaksInFile = 0
    this.#inFile = inFile
  }

  /** The file has become longer or shorter. */
  setInFile(clusters: number): void {
    const from = Math.min(clusters, this.#inFile)
    const to = Math.min(this.#stored.length, Math.max(clusters, this.#inFile))
    for (let cluster = from; cluster < to; cluster++) this.#judge(cluster, -1)
    this.#inFile = clusters
    for (let cluster = from; cluster < to; cluster++) this.#judge(cluster, 1)
  }

  /** A block says so, or no longer does. */
  count(cluster: number, count: number, sign: 1 | -1): void {
    if (count === 0) return
    if (cluster >= this.#stored.length) {
      this.leaks += sign
      return
    }
    this.#judge(cluster, -1)
    this.#stored[cluster] = sign > 0 ? count : 0
    this.#judge(cluster, 1)
  }

  /** A reference comes or goes. @param copied  what an active table says of COPIED; undefined: not of an active table */
  refer(cluster: number, sign: 1 | -1, copied?: boolean): void {
    if (cluster >= this.#references.length) {
      this.wrong += sign
      return
    }
    this.#judge(cluster, -1)
    this.#references[cluster] = (this.#references[cluster] as number) + sign
    if (copied === true) this.#copied[cluster] = (this.#copied[cluster] as number) + sign
    if (copied === false) this.#plain[cluster] = (this.#plain[cluster] as number) + sign
    this.#judge(cluster, 1)
  }

  /** Take what a cluster adds to the sums in, or out before it changes. */
  #judge(cluster: number, sign: 1 | -1): void {
    const stored = this.#stored[cluster] as number
    const references = this.#references[cluster] as number
    const copied = this.#copied[cluster] as number
    const plain = this.#plain[cluster] as number
    const isInFile = cluster < this.#inFile
    const isWrong =
      stored < references ||
      (stored === 1 ? plain > 0 : copied > 0) ||
      // Which of the two a change of its bytes concerns is not kept.
      copied + plain > 1 ||
      (references > 0 && !isInFile)
    if (isWrong) this.wrong += sign
    if (stored === references) return
    this.leaks += sign
    if (isInFile) this.leaksInFile += sign
  }
}
