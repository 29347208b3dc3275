import { join } from 'node:path'
import test from 'ava'
import { DiskImage } from '../../lib/image/disk-image.js'
import { findSparseLayers, type Layer, LayersBelow, lookUpExtent } from '../../lib/image/layers.js'
import type { FormatImage, Mapping } from '../../lib/queue/format-image.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { createImage, openImage } from '../../lib/index.js'
import { RawImage } from '../../lib/raw/raw-image.js'
import { makeFolder } from '../support/temp-folder.js'

type Run = Mapping & { readonly offset: number }

/** A layer whose runs are written down; its bytes are its number. */
function layer(number: number, size: number, runs: readonly Run[]): Layer {
  const backend = new MemoryBackend({ path: `layer${number}` })
  const format = {
    format: 'qcow2',
    clusterSize: 512,
    size,
    read: (bytes: Uint8Array) => {
      bytes.fill(number)
      return Promise.resolve()
    },
    mapping: (offset: number, length: number) => {
      const run = runs.find((found) => offset < found.offset + found.length)
      if (run === undefined) throw new Error(`nothing at ${offset}`)
      const skipped = offset - run.offset
      const rest = { length: Math.min(length, run.length - skipped) }
      if (run.type === 'data')
        return Promise.resolve({ ...run, ...rest, hostOffset: run.hostOffset + skipped })
      return Promise.resolve({ ...run, ...rest })
    },
  }
  return { backend, format: format as unknown as FormatImage }
}

const unallocated = (offset: number, length: number): Run => ({ type: 'unallocated', offset, length })
const zero = (offset: number, length: number): Run => ({
  type: 'zero',
  offset,
  length,
  hostOffset: undefined,
})

async function rawLayer(length: number): Promise<Layer> {
  const backend = new MemoryBackend()
  await backend.write(new Uint8Array(length).fill(9), 0)
  return { backend, format: new RawImage(backend) }
}

test('what the top says hides what is below', async (t) => {
  const layers = [
    layer(1, 4096, [zero(0, 1024), { type: 'compressed', offset: 1024, length: 512 }]),
    await rawLayer(4096),
  ]
  t.deepEqual(await lookUpExtent(layers, 512, 3000, []), {
    offset: 512,
    length: 512,
    allocated: true,
    zero: true,
    data: false,
    compressed: false,
    depth: 0,
  })
  t.like(await lookUpExtent(layers, 1024, 512, []), {
    length: 512,
    compressed: true,
    data: true,
    zero: false,
    depth: 0,
  })
})

test('what the top does not have is looked up below, in runs that suit both', async (t) => {
  const layers = [
    layer(1, 4096, [unallocated(0, 4096)]),
    layer(2, 4096, [unallocated(0, 1000), zero(1000, 3096)]),
  ]
  t.like(await lookUpExtent(layers, 0, 4096, []), {
    length: 1000,
    allocated: false,
    zero: true,
    data: false,
    depth: 1,
  })
  t.like(await lookUpExtent(layers, 1000, 100, []), { length: 100, allocated: true, zero: true, depth: 1 })
  const overRaw = [layer(1, 8192, [unallocated(0, 8192)]), await rawLayer(4096)]
  t.like(await lookUpExtent(overRaw, 512, 8000, []), {
    length: 3584,
    data: true,
    zero: false,
    depth: 1,
    hostOffset: 512,
  })
})

test('past the end of a shorter backing file is nothing, and the layer above says so', async (t) => {
  const layers = [layer(1, 8192, [unallocated(0, 8192)]), await rawLayer(4096)]
  t.like(await lookUpExtent(layers, 4096, 4096, []), { length: 4096, allocated: false, zero: true, depth: 0 })
})

test('clusters that are a hole of the file are data that is zero', async (t) => {
  const top = layer(1, 8192, [{ type: 'data', offset: 0, length: 8192, hostOffset: 65536 }])
  await top.backend.write(new Uint8Array(4096).fill(1), 65536)
  t.like(await lookUpExtent([top], 0, 8192, [true]), {
    length: 4096,
    data: true,
    zero: false,
    hostOffset: 65536,
  })
  t.like(await lookUpExtent([top], 4096, 4096, [true]), {
    length: 4096,
    data: true,
    zero: true,
    hostOffset: 69632,
  })
})

test('where no holes are expected, the file is not asked', async (t) => {
  const top = layer(1, 8192, [{ type: 'data', offset: 0, length: 8192, hostOffset: 65536 }])
  t.like(await lookUpExtent([top], 0, 8192, [false]), { length: 8192, data: true, zero: false })
})

test('a layer is sparse if its file takes less space than its clusters', async (t) => {
  const folder = await makeFolder(t)
  const sparse: boolean[] = []
  for (const preallocation of ['off', 'metadata', 'full'] as const) {
    const path = join(folder, preallocation)
    await createImage(path, { size: 4 * 1024 * 1024, preallocation })
    const image = await openImage(path, { readOnly: true })
    sparse.push(...(await findSparseLayers(DiskImage.layersOf(image))))
    await image.close()
  }
  t.deepEqual(sparse.slice(1), [true, false])
})

test('reading past the end of the layers below fills with zeros', async (t) => {
  const below = new LayersBelow([layer(7, 1000, [])])
  t.is(below.size, 1000)
  for (const [offset, right] of [
    [0, [7, 7, 7, 7]],
    [998, [7, 7, 0, 0]],
    [1000, [0, 0, 0, 0]],
    [5000, [0, 0, 0, 0]],
  ] as const) {
    const bytes = new Uint8Array(4).fill(0xee)
    await below.read(bytes, offset)
    t.deepEqual([...bytes], [...right])
  }
})

test('whether a range is zeros is known without reading it', async (t) => {
  const below = new LayersBelow([
    layer(1, 4096, [zero(0, 1024), unallocated(1024, 3072)]),
    layer(2, 2048, [{ type: 'data', offset: 0, length: 1536, hostOffset: 0 }, zero(1536, 512)]),
  ])
  t.true(await below.readsAsZeros(0, 1024))
  t.true(await below.readsAsZeros(1536, 9000))
  t.true(await below.readsAsZeros(9000, 10))
})

test('a range with data is not zeros', async (t) => {
  const below = new LayersBelow([layer(1, 4096, [unallocated(0, 4096)]), await rawLayer(4096)])
  t.false(await below.readsAsZeros(0, 4096))
})
