import test from 'ava'
import { limitWindow, measureFrame } from '../../lib/qcow2/zstd-frames.js'
import { sampleFrame, secondFrameAt, skippableFrame, stockSectors } from '../support/zstd-samples.js'

const behind = Buffer.from('what belongs to the next cluster')

test('a frame of qemu-img ends where the next begins, in the middle of a sector', (t) => {
  const first = measureFrame(stockSectors)
  t.like(first, { type: 'data', bytes: secondFrameAt, contentSize: 2048, singleSegment: true })
  t.like(measureFrame(stockSectors.subarray(secondFrameAt)), { type: 'data', contentSize: 2048 })
})

test('frames are measured to the byte, whatever their header holds', (t) => {
  const blocks = [Buffer.from('some bytes'), { repeat: 7, times: 1000 }, Buffer.alloc(0)]
  const frames = [
    { frame: sampleFrame({ blocks }), contentSize: undefined, windowSize: 2 ** 17 },
    { frame: sampleFrame({ blocks, windowBits: 27 }), contentSize: undefined, windowSize: 2 ** 27 },
    { frame: sampleFrame({ blocks, contentSize: 1010 }), contentSize: 1010, windowSize: 2 ** 17 },
    {
      frame: sampleFrame({ blocks, contentSize: 1010, singleSegment: true }),
      contentSize: 1010,
      windowSize: 1010,
    },
    // one byte for the size, and a checksum
    {
      frame: Buffer.from('28b52ffd2403190000616263' + '01020304', 'hex'),
      contentSize: 3,
      windowSize: 3,
    },
    // two bytes for the size, which begin at 256
    {
      frame: Buffer.from('28b52ffd600100' + '0b080061', 'hex'),
      contentSize: 257,
      windowSize: 257,
    },
    // four bytes, a window with eighths, and a dictionary called none
    {
      frame: Buffer.from('28b52ffd813b' + '00' + '01010000' + '0b080061', 'hex'),
      contentSize: 257,
      windowSize: 2 ** 17 + (2 ** 17 / 8) * 3,
    },
  ]
  for (const { frame, contentSize, windowSize } of frames) {
    t.like(measureFrame(Buffer.concat([frame, behind])), {
      type: 'data',
      bytes: frame.length,
      contentSize,
      windowSize,
    })
    for (let length = 0; length < frame.length; length++) {
      t.deepEqual(
        measureFrame(frame.subarray(0, length)),
        { type: 'damaged', reason: 'it ends within a frame' },
        `${frame.toString('hex')} of ${length} bytes`,
      )
    }
  }
})

test('a frame for no decoder is passed over, if it is there as a whole', (t) => {
  const frame = skippableFrame(Buffer.from('abc'))
  t.deepEqual(measureFrame(Buffer.concat([frame, behind])), { type: 'skippable', bytes: 11 })
  t.is(measureFrame(frame.subarray(0, 10)).type, 'damaged')
})

test('what no decoder could unpack, or only with much memory, is refused before one sees it', (t) => {
  const blocks = [Buffer.from('abc')]
  const refused: [string, Buffer, RegExp][] = [
    ['no frame', Buffer.alloc(512), /no zstd frame/],
    ['a window of 256 MiB', sampleFrame({ blocks, windowBits: 28 }), /window has 268435456 bytes/],
    ['a window of 2 TiB', sampleFrame({ blocks, windowBits: 41 }), /window has 2199023255552 bytes/],
    [
      'as much in one segment',
      sampleFrame({ blocks, contentSize: 2 ** 40, singleSegment: true }),
      /window has 1099511627776 bytes/,
    ],
    ['a dictionary', Buffer.from('28b52ffd013805' + '190000616263', 'hex'), /dictionary/],
    ['a reserved bit', Buffer.from('28b52ffd0838' + '190000616263', 'hex'), /reserved bit/],
    ['a reserved block', Buffer.from('28b52ffd0038' + '1f0000616263', 'hex'), /reserved type/],
  ]
  for (const [what, frame, reason] of refused) {
    const measured = measureFrame(frame)
    t.true(measured.type === 'damaged' && reason.test(measured.reason), what)
  }
})

test('a window is made as small as the cluster, in a copy', (t) => {
  const frame = sampleFrame({ blocks: [Buffer.from('abc')], windowBits: 27 })
  const before = Buffer.from(frame)
  for (const [most, window] of [
    [512, 1024],
    [1024, 1024],
    [65536, 65536],
    [2 ** 21, 2 ** 21],
  ] as const) {
    const limited = limitWindow(frame, measureFrame(frame), most)
    t.like(measureFrame(limited), { type: 'data', windowSize: window, bytes: frame.length })
  }
  t.deepEqual(frame, before)
  const small = sampleFrame({ blocks: [Buffer.from('abc')], windowBits: 12 })
  t.is(limitWindow(small, measureFrame(small), 65536), small)
  const single = sampleFrame({ blocks: [Buffer.from('abc')], contentSize: 3, singleSegment: true })
  t.is(limitWindow(single, measureFrame(single), 512), single)
})
