import test from 'ava'

const length = 4 * 2 ** 20

test('equal bytes are found equal at once, however many there are', (t) => {
  const before = process.cpuUsage()
  t.deepEqual(Buffer.alloc(length, 7), Buffer.alloc(length, 7))
  t.deepEqual(new Uint8Array(length), new Uint8Array(length))
  const { user, system } = process.cpuUsage(before)
  t.true(user + system < 1_000_000, `${user + system} microseconds`)
})

test('bytes that differ, are fewer, or are of another kind are not equal', (t) => {
  t.deepEqual(Buffer.of(1, 2), Buffer.of(1, 2))
  t.notDeepEqual(Buffer.of(1, 2), Buffer.of(1, 3))
  t.notDeepEqual(Buffer.of(1, 2), Buffer.of(1, 2, 0))
  t.notDeepEqual<Uint8Array, Uint8Array>(Buffer.of(1, 2), Uint8Array.of(1, 2))
})
