import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { addLocks, dropLocks, lockBytes, type LockUse, lockUse, takeLocks } from '../../lib/image/locks.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'

test("who takes which bytes is QEMU's table", (t) => {
  const table: Record<LockUse, { held: number[]; tested: number[] }> = {
    'qcow2 read-write': { held: [100, 101, 103, 201, 203], tested: [200, 201, 203, 101, 103] },
    'read-only': { held: [100, 201, 203], tested: [200, 101, 103] },
    'force-share': { held: [100], tested: [200] },
    'raw read-write': { held: [100, 101, 103, 201], tested: [200, 201, 203, 101] },
    'data file read-write': { held: [100, 101, 103, 203], tested: [200, 201, 203, 103] },
    'data file read-only': { held: [100, 203], tested: [200, 103] },
    creation: { held: [101, 103, 203], tested: [201, 203, 103] },
    'metadata only': { held: [201, 203], tested: [101, 103] },
  }
  for (const [use, bytes] of Object.entries(table)) t.deepEqual(lockBytes(use as LockUse), bytes, use)
})

test('the use follows from the format and the access', (t) => {
  t.is(lockUse('qcow2', { readOnly: false, forceShare: false }), 'qcow2 read-write')
  t.is(lockUse('raw', { readOnly: false, forceShare: false }), 'raw read-write')
  t.is(lockUse('raw', { readOnly: true, forceShare: false }), 'read-only')
  t.is(lockUse('qcow2', { readOnly: true, forceShare: true }), 'force-share')
})

/** A file on whose byte somebody else holds a lock. */
class LockedElsewhere extends MemoryBackend {
  readonly conflict: number

  constructor(conflict: number) {
    super({ path: '/vm/disk.qcow2' })
    this.conflict = conflict
  }

  override lock(): undefined {
    return this.conflict as unknown as undefined
  }
}

test('a use that changes takes what is new and tests all of it, and drops the rest afterwards', (t) => {
  const calls: unknown[] = []
  class Locked extends MemoryBackend {
    override lock(held?: unknown, tested?: unknown): undefined {
      calls.push(['lock', held, tested])
      return undefined
    }
    override unlock(held?: unknown): void {
      calls.push(['unlock', held])
    }
  }
  const backend = new Locked()
  addLocks(backend, 'read-only', 'qcow2 read-write')
  dropLocks(backend, 'read-only', 'qcow2 read-write')
  addLocks(backend, 'raw read-write', 'read-only')
  dropLocks(backend, 'raw read-write', 'read-only')
  t.deepEqual(calls, [
    ['lock', [101, 103], [200, 201, 203, 101, 103]],
    ['lock', [203], [200, 101, 103]],
    ['unlock', [101, 103]],
  ])
  t.throws(() => addLocks(new LockedElsewhere(201), 'read-only', 'qcow2 read-write'), {
    code: 'ERR_IMAGE_LOCKED',
  })
})

test('a conflict is told in the words of QEMU', (t) => {
  const words: [number, string][] = [
    [201, 'Failed to get "write" lock'],
    [203, 'Failed to get "resize" lock'],
    [101, 'Failed to get shared "write" lock'],
    [200, 'Failed to get "consistent read" lock'],
    [104, 'Failed to get lock'],
  ]
  for (const [byte, message] of words) {
    t.throws(() => takeLocks(new LockedElsewhere(byte), 'qcow2 read-write'), {
      code: 'ERR_IMAGE_LOCKED',
      message: `${message}\nIs another process using the image [/vm/disk.qcow2]?`,
    })
  }
})

test('where there are no such locks, one goes without', (t) => {
  class WithoutLocks extends MemoryBackend {
    override lock(): undefined {
      throw new Qcow2Error('ERR_NOT_SUPPORTED', 'no locks here')
    }
  }
  t.notThrows(() => takeLocks(new WithoutLocks(), 'creation'))
})

test('a file is read ahead where locks keep all others from changing it', (t) => {
  class Ahead extends MemoryBackend {
    ahead = 0
    mayReadAhead(): void {
      this.ahead++
    }
  }
  const uses = [
    'qcow2 read-write',
    'read-only',
    'raw read-write',
    'data file read-only',
    'force-share',
  ] as const
  const ahead = uses.map((use) => {
    const backend = new Ahead()
    takeLocks(backend, use)
    return backend.ahead
  })
  t.deepEqual(ahead, [1, 1, 1, 1, 0])

  class Refused extends Ahead {
    override lock(): undefined {
      return 201 as unknown as undefined
    }
  }
  class Without extends Ahead {
    override lock(): undefined {
      throw new Qcow2Error('ERR_NOT_SUPPORTED', 'there are no locks here')
    }
  }
  const refused = new Refused()
  t.throws(() => takeLocks(refused, 'read-only'), { code: 'ERR_IMAGE_LOCKED' })
  const without = new Without()
  takeLocks(without, 'read-only')
  t.deepEqual([refused.ahead, without.ahead], [0, 0])
})
