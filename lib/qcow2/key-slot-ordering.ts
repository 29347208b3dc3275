import { alignDown, alignUp } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import { encodeSlot, type KeySlot } from '../luks/header.js'
import { headerBytes, slotFields, slotOffset } from '../luks/spec.js'
import type { BlockBackend } from '../queue/backend.js'

/** A slot of the LUKS header at `area` in the file. */
export type SlotPlace = { readonly area: number; readonly slot: number }

/**
 * The barriers of changes of key slots. Nobody else changes the header meanwhile.
 *
 * A slot is used when its state says so, a number within one sector. What else is in it may reach over two, and its material over hundreds.
 */
export class KeySlotOrdering {
  readonly #backend: BlockBackend

  constructor(backend: BlockBackend) {
    this.#backend = backend
  }

  /**
   * Make a slot that is not in use one that is. Without the first barrier a crash could leave a slot that says it is in use, and whose material is
   * not there: its passphrase opens nothing, and whoever then removes another one, since this is left, has lost the disk.
   * Without the second one, the passphrase that this one is to replace could be removed for good before this one works.
   */
  async activate(place: SlotPlace, slot: KeySlot, material: Uint8Array): Promise<void> {
    await this.#backend.write(material, place.area + slot.materialOffset)
    await this.#writeSlot(place, { ...slot, active: false }, slotFields.sizeBytes)
    await this.#backend.flush()
    await this.#writeState(place, slot)
    await this.#backend.flush()
  }

  /**
   * Take a slot out of use, and what is behind it out of the file. Without the first barrier a crash could leave a slot in use without its
   * material, as above. Without the second one a slot could look as if its removal were complete, while its old material is still there: nobody would
   * wipe it any more. The third is for the caller, who is told that the key is gone.
   * @param noise  as long as the material
   */
  async erase(place: SlotPlace, slot: KeySlot, noise: Uint8Array): Promise<void> {
    await this.#writeState(place, { ...slot, active: false })
    await this.#backend.flush()
    await this.#backend.write(noise, place.area + slot.materialOffset)
    await this.#backend.flush()
    const empty = { ...slot, active: false, iterations: 0, salt: new Uint8Array(slot.salt.byteLength) }
    await this.#writeSlot(place, empty, slotFields.sizeBytes)
    await this.#backend.flush()
  }

  /** One sector alone. */
  async #writeState(place: SlotPlace, slot: KeySlot): Promise<void> {
    await this.#writeSlot(place, slot, slotFields.offsets.state + 4)
  }

  /** The sectors that the first `length` bytes of a slot stand in; all else in them as it is. */
  async #writeSlot({ area, slot: index }: SlotPlace, slot: KeySlot, length: number): Promise<void> {
    const at = slotOffset(index)
    const sectors = new Uint8Array(alignUp(headerBytes, sectorSize))
    await this.#backend.read(sectors, area)
    sectors.set(encodeSlot(slot).subarray(0, length), at)
    const first = alignDown(at, sectorSize)
    const end = alignUp(at + length, sectorSize)
    await this.#backend.write(sectors.subarray(first, end), area + first)
  }
}
