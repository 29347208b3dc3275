import test from 'ava'
import { extentsOf } from '../../lib/image/extents.js'
import type { Extent, Layer } from '../../lib/image/layers.js'
import type { FormatImage, Mapping } from '../../lib/queue/format-image.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'

/** A layer that answers in clusters of 512 bytes, each as the letter at its place says. */
function lettered(letters: string): Layer {
  const kinds: Record<string, (index: number) => Mapping> = {
    u: () => ({ type: 'unallocated', length: 512 }),
    z: () => ({ type: 'zero', length: 512, hostOffset: undefined }),
    // Compressed clusters stand anywhere.
    c: () => ({ type: 'compressed', length: 512 }),
    // Zero clusters that keep a cluster of the file, one behind the other.
    k: (index) => ({ type: 'zero', length: 512, hostOffset: index * 512 }),
    // The same, each somewhere else.
    s: (index) => ({ type: 'zero', length: 512, hostOffset: index * 4096 }),
  }
  const format = {
    format: 'qcow2',
    size: letters.length * 512,
    mapping: (offset: number, length: number) => {
      const mapping = kinds[letters[Math.floor(offset / 512)] ?? 'u']?.(Math.floor(offset / 512))
      if (mapping === undefined) throw new Error('no such letter')
      return Promise.resolve({ ...mapping, length: Math.min(length, 512 - (offset % 512)) })
    },
  }
  return { backend: new MemoryBackend(), format: format as unknown as FormatImage }
}

async function walk(letters: string, range?: { offset: number; length: number }): Promise<Extent[]> {
  const found: Extent[] = []
  const whole = { offset: 0, length: letters.length * 512 }
  for await (const extent of extentsOf([lettered(letters)], range ?? whole, () => undefined))
    found.push(extent)
  return found
}

test('neighbours that are alike are one run', async (t) => {
  const found = await walk('uuzzzuccu')
  t.deepEqual(
    found.map(({ offset, length, allocated }) => [offset / 512, length / 512, allocated]),
    [
      [0, 2, false],
      [2, 3, true],
      [5, 1, false],
      [6, 2, true],
      [8, 1, false],
    ],
  )
})

test('places in the file join only if one follows the other', async (t) => {
  t.is((await walk('kkkk')).length, 1)
  t.is((await walk('ssss')).length, 4)
})

test('a range is cut at both ends', async (t) => {
  const found = await walk('zzzz', { offset: 700, length: 1000 })
  t.deepEqual(
    found.map(({ offset, length }) => [offset, length]),
    [[700, 1000]],
  )
  t.deepEqual(await walk('zzzz', { offset: 2048, length: 0 }), [])
})

test('it stops when the image is closed', async (t) => {
  let open = true
  const extents = extentsOf([lettered('zuzu')], { offset: 0, length: 2048 }, () => {
    if (!open) throw new Error('closed')
  })
  await extents.next()
  open = false
  await t.throwsAsync(extents.next(), { message: 'closed' })
})
