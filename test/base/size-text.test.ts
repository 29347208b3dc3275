import test from 'ava'
import { formatSize } from '../../lib/base/size-text.js'

for (const [bytes, text] of [
  [0, '0 B'],
  [512, '512 B'],
  [999, '999 B'],
  [1000, '0.977 KiB'],
  [1024, '1 KiB'],
  [200704, '196 KiB'],
  [1000448, '977 KiB'],
  [1023488, '1e+03 KiB'],
  [1024000, '0.977 MiB'],
  [12345856, '11.8 MiB'],
  [67108864, '64 MiB'],
  [1610612736, '1.5 GiB'],
  [5 * 2 ** 40, '5 TiB'],
] as const) {
  test(`${bytes} bytes are shown as ${text}`, (t) => {
    t.is(formatSize(bytes), text)
  })
}
