import type { DiskImage } from '../../lib/index.js'
import type { SeededRandom } from './seeded-random.js'

/** What a bitmap must say: the units that were touched while it followed the disk. */
export type ModelBitmap = { readonly granularity: number; enabled: boolean; readonly units: Set<number> }

const changesOfOne = ['remove', 'clear', 'enable', 'disable', 'merge'] as const

/** A change of bitmaps: of the one of that name. */
export type BitmapStep =
  | { readonly kind: 'add'; readonly name: string; readonly granularity: number }
  | { readonly kind: 'merge'; readonly name: string; readonly from: string }
  | { readonly kind: 'remove' | 'clear' | 'enable' | 'disable'; readonly name: string }

const names = ['one', 'two', 'three']

/** The bitmaps of a disk as they must be. */
export class BitmapModel {
  readonly all = new Map<string, ModelBitmap>()
  #size: number

  /** @param size  of the disk, bytes */
  constructor(size: number) {
    this.#size = size
  }

  /** These bytes were changed, or may have been. */
  touch(offset: number, length: number): void {
    if (length === 0) return
    for (const { enabled, granularity, units } of this.all.values()) {
      if (!enabled) continue
      const last = Math.floor((offset + length - 1) / granularity)
      for (let unit = Math.floor(offset / granularity); unit <= last; unit++) units.add(unit)
    }
  }

  /** The disk has another size. @param marksGrowth  what is new counts as changed */
  resize(size: number, { marksGrowth }: { readonly marksGrowth: boolean }): void {
    const before = this.#size
    this.#size = size
    for (const { units, granularity } of this.all.values()) {
      for (const unit of units) if (unit * granularity >= size) units.delete(unit)
    }
    if (marksGrowth && size > before) this.touch(before, size - before)
  }

  /** Choose a change, and make the model what it must lead to. */
  anyStep(random: SeededRandom): BitmapStep {
    const name = random.pick(names)
    const bitmap = this.all.get(name)
    if (bitmap === undefined) {
      const granularity = random.pick([512, 4096, 65536])
      this.all.set(name, { granularity, enabled: true, units: new Set() })
      return { kind: 'add', name, granularity }
    }
    const kind = random.pick(changesOfOne)
    if (kind === 'merge') {
      const from = random.pick([...this.all.keys()])
      const source = this.all.get(from)
      if (source !== undefined) this.#merge(bitmap, source)
      return { kind, name, from }
    }
    if (kind === 'remove') this.all.delete(name)
    else if (kind === 'clear') bitmap.units.clear()
    else bitmap.enabled = kind === 'enable'
    return { kind, name }
  }

  #merge(into: ModelBitmap, from: ModelBitmap): void {
    for (const unit of [...from.units]) {
      const end = Math.min((unit + 1) * from.granularity, this.#size)
      const last = Math.floor((end - 1) / into.granularity)
      for (let one = Math.floor((unit * from.granularity) / into.granularity); one <= last; one++)
        into.units.add(one)
    }
  }
}

/** How `qemu-img bitmap` is told of a change. */
export function stockBitmapFlags(step: BitmapStep): string[] {
  if (step.kind === 'add') return ['--add', '-g', String(step.granularity)]
  return step.kind === 'merge' ? ['--merge', step.from] : [`--${step.kind}`]
}

export async function ourBitmapStep({ bitmaps }: DiskImage, step: BitmapStep): Promise<void> {
  if (step.kind === 'add') await bitmaps.add(step.name, { granularity: step.granularity })
  else if (step.kind === 'merge') await bitmaps.merge(step.name, step.from)
  else await bitmaps[step.kind](step.name)
}
