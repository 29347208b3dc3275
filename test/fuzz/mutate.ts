import type { SeededRandom } from '../support/seeded-random.js'
import type { Sample } from './sample-images.js'
import { type Place, structuresOf } from './structures.js'

export type Mutant = {
  readonly bytes: Buffer
  /** What was done to the image, for the message of a failure. */
  readonly story: string
}

/** Make a sound image an unsound one: one to four numbers of its metadata, or its length. */
export function mutate(sample: Sample, random: SeededRandom): Mutant {
  const { bytes } = sample
  const structures = structuresOf(bytes)
  const names = [...structures.keys()]
  const mutant = Buffer.from(bytes)
  const story: string[] = []
  for (let count = random.pick([1, 1, 1, 2, 4]); count > 0; count--) {
    const places = structures.get(random.pick(names)) ?? []
    // Empty entries are many, and little happens with them.
    const used = places.filter((place) => valueAt(mutant, place) !== 0n)
    const place = random.pick(used.length > 0 && random.chance(0.8) ? used : places)
    const value = BigInt.asUintN(place.width * 8, otherValue(mutant, place, structures, random))
    story.push(
      `${place.what} at ${place.offset}: ${valueAt(mutant, place).toString(16)} -> ${value.toString(16)}`,
    )
    setValue(mutant, place, value)
  }
  if (!random.chance(0.1)) return { bytes: mutant, story: story.join(', ') }
  const length = random.integer(mutant.length)
  return { bytes: mutant.subarray(0, length), story: `${story.join(', ')}, cut to ${length} bytes` }
}

function valueAt(bytes: Buffer, { offset, width }: Place): bigint {
  return width === 8 ? bytes.readBigUInt64BE(offset) : BigInt(bytes.readUIntBE(offset, width))
}

function setValue(bytes: Buffer, { offset, width }: Place, value: bigint): void {
  if (width === 8) bytes.writeBigUInt64BE(value, offset)
  else bytes.writeUIntBE(Number(value), offset, width)
}

function otherValue(
  bytes: Buffer,
  place: Place,
  structures: ReadonlyMap<string, readonly Place[]>,
  random: SeededRandom,
): bigint {
  const value = valueAt(bytes, place)
  const bits = place.width * 8
  const clusterSize = 2n ** BigInt(Math.min(21, Math.max(9, bytes.readUInt32BE(20))))
  switch (random.integer(9)) {
    case 0:
      return value ^ (1n << BigInt(random.integer(bits)))
    case 1:
      return random.pick([
        0n,
        1n,
        (1n << BigInt(bits)) - 1n,
        1n << BigInt(bits - 1),
        (1n << 53n) - 1n,
        1n << 56n,
      ])
    case 2:
      return value + random.pick([1n, -1n, 8n, 511n, 512n, -512n])
    case 3:
      return value + random.pick([1n, -1n, 2n, 1000n]) * clusterSize
    case 4: {
      // Onto another structure, or a cluster behind the end.
      const clusters = BigInt(Math.ceil(bytes.length / Number(clusterSize)) + 3)
      const cluster = BigInt(random.integer(Number(clusters)))
      return (value & ~0x00ff_ffff_ffff_fe00n) | (cluster * clusterSize)
    }
    case 5: {
      const other = random.pick([...structures.values()].flat())
      return valueAt(bytes, other)
    }
    case 6:
      return value ^ random.pick([1n << 63n, 1n << 62n, 1n])
    case 7:
      return value * random.pick([2n, 256n, 1n << 16n])
    default:
      return (BigInt(random.integer(2 ** 32)) << 32n) | BigInt(random.integer(2 ** 32))
  }
}
