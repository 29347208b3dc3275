const leastPlaces = 16
const free = -1

/** Of a map in which there has never been anything: many never have. */
const noKeys = Float64Array.of(free)

/**
 * A map from integers >= 0 to what comes and goes all the time. A Map makes itself anew for every few that are deleted, and each of its former tables leads to the
 * next: once the garbage collector has taken one of them for long-lived, it keeps what the later ones held, garbage or not. This one stays
 * as large as it has ever been, and deletes in place.
 */
export class NumberMap<V> {
  /** Open addressing: an entry stands at its home, or behind it with no free place in between. */
  #keys: Float64Array = noKeys
  #values: (V | undefined)[] = [undefined]
  #size = 0

  get size(): number {
    return this.#size
  }

  get(key: number): V | undefined {
    return this.#values[this.#placeOf(key)]
  }

  set(key: number, value: V): void {
    let place = this.#placeOf(key)
    if (this.#keys[place] === free) {
      if ((this.#size + 1) * 2 > this.#keys.length) {
        this.#grow()
        place = this.#placeOf(key)
      }
      this.#size++
      this.#keys[place] = key
    }
    this.#values[place] = value
  }

  delete(key: number): void {
    const keys = this.#keys
    const mask = keys.length - 1
    let hole = this.#placeOf(key)
    if (keys[hole] === free) return
    this.#size--
    for (let at = (hole + 1) & mask; keys[at] !== free; at = (at + 1) & mask) {
      const moved = keys[at] as number
      // Not if its home is behind the hole: it would not be found there.
      if (((at - homeOf(moved, mask)) & mask) < ((at - hole) & mask)) continue
      keys[hole] = moved
      this.#values[hole] = this.#values[at]
      hole = at
    }
    keys[hole] = free
    this.#values[hole] = undefined
  }

  clear(): void {
    this.#keys.fill(free)
    this.#values.fill(undefined)
    this.#size = 0
  }

  /** As they are now, in no order. */
  values(): V[] {
    return this.#values.filter((value) => value !== undefined)
  }

  /** Where the key stands, or would stand. */
  #placeOf(key: number): number {
    const keys = this.#keys
    const mask = keys.length - 1
    let place = homeOf(key, mask)
    while (keys[place] !== key && keys[place] !== free) place = (place + 1) & mask
    return place
  }

  #grow(): void {
    const keys = this.#keys
    const values = this.#values
    const places = Math.max(leastPlaces, keys.length * 2)
    this.#keys = new Float64Array(places).fill(free)
    this.#values = new Array<V | undefined>(places).fill(undefined)
    for (let at = 0; at < keys.length; at++) {
      const key = keys[at] as number
      if (key === free) continue
      const place = this.#placeOf(key)
      this.#keys[place] = key
      this.#values[place] = values[at]
    }
  }
}

/** Offsets of tables differ in few of their bits: mixed, all of them count. */
function homeOf(key: number, mask: number): number {
  let hash = Math.imul((key >>> 0) ^ Math.imul(key / 2 ** 32, 0x85ebca6b), 0x9e3779b1)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  return (hash ^ (hash >>> 13)) & mask
}
