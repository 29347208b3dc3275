import { constants } from 'node:os'
import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import {
  closedError,
  describeErrno,
  errnoOf,
  errorOfAddon,
  openError,
  poisonedError,
  systemError,
} from '../../lib/queue/system-error.js'

const { errno } = constants

test('a failure of the system says what failed and why in the words of Node', (t) => {
  const error = systemError(errno.ENOSPC, 'write', { path: '/disk', offset: 512 })
  t.true(error instanceof Qcow2Error)
  t.is(error.message, "ENOSPC: no space left on device, write '/disk'")
  t.like(error, { code: 'ERR_NO_SPACE', path: '/disk', offset: 512, errno: errno.ENOSPC })
  t.is(systemError(errno.EIO, 'sync').message, 'EIO: i/o error, sync')
})

test('each failure has the code that callers branch on', (t) => {
  for (const [number, code] of [
    [errno.ENOSPC, 'ERR_NO_SPACE'],
    [errno.EDQUOT, 'ERR_NO_SPACE'],
    [errno.ENOMEM, 'ERR_OUT_OF_MEMORY'],
    [errno.ENOENT, 'ERR_NOT_FOUND'],
    [errno.ENOTDIR, 'ERR_NOT_FOUND'],
    [errno.EACCES, 'ERR_PERMISSION'],
    [errno.EPERM, 'ERR_PERMISSION'],
    [errno.EROFS, 'ERR_READ_ONLY'],
    [errno.EISDIR, 'ERR_IS_A_DIRECTORY'],
    [errno.EEXIST, 'ERR_EXISTS'],
    [errno.ENOTSUP, 'ERR_NOT_SUPPORTED'],
    [errno.EIO, 'ERR_IO'],
    [errno.EFBIG, 'ERR_IO'],
    [4000, 'ERR_IO'],
  ] as const) {
    t.is(systemError(number, 'write').code, code, String(number))
  }
  t.regex(systemError(4000, 'write').message, /^errno 4000: unknown error, write/)
})

test('what comes after a failure of the queue names that failure as its cause', (t) => {
  const first = systemError(errno.EIO, 'sync', { path: '/disk' })
  const error = poisonedError(first, '/disk')
  t.like(error, { code: 'ERR_POISONED', path: '/disk', errno: errno.EIO })
  t.is(error.cause, first)
  t.true(error.message.includes(first.message))
})

test('an opening past the page cache that is refused says so, and only then', (t) => {
  t.is(openError(errno.EINVAL, '/disk', { direct: true }).code, 'ERR_NOT_SUPPORTED')
  t.is(openError(errno.EINVAL, '/disk', { direct: false }).code, 'ERR_IO')
  t.is(openError(errno.ENODEV, '/dev/tty', { direct: false }).code, 'ERR_NOT_SUPPORTED')
  t.is(openError(errno.ENOENT, '/disk', { direct: true }).code, 'ERR_NOT_FOUND')
  t.is(closedError('/disk').code, 'ERR_CLOSED')
})

test('what the addon throws for lack of memory becomes a failure of the file, and nothing else does', (t) => {
  const thrown = Object.assign(new Error('Out of memory'), { code: 'ERR_OUT_OF_MEMORY' })
  const error = errorOfAddon(thrown, 'lock', '/disk')
  t.true(error instanceof Qcow2Error)
  t.like(error, { code: 'ERR_OUT_OF_MEMORY', path: '/disk', errno: errno.ENOMEM, cause: thrown })
  const other = new TypeError('misuse')
  t.is(errorOfAddon(other, 'lock', '/disk'), other)
})

test("a failure of Node's file functions has the number of the system, whatever number Node gives it", (t) => {
  const failure = (code: string, number?: number): NodeJS.ErrnoException =>
    Object.assign(new Error(code), { code, errno: number })
  t.is(errnoOf(failure('ENOENT', -errno.ENOENT)), errno.ENOENT)
  // As on Windows.
  t.is(errnoOf(failure('ENOENT', -4058)), errno.ENOENT)
  t.is(errnoOf(failure('EUNHEARD', -4999)), 4999)
  t.is(errnoOf(failure('ERR_INVALID_ARG_VALUE')), undefined)
  t.deepEqual(describeErrno(errno.ENOENT), { name: 'ENOENT', text: 'no such file or directory' })
  t.is(describeErrno(4000), undefined)
})

test('a file that another program keeps from everybody is locked', (t) => {
  t.is(openError(errno.EBUSY, 'C:\\disk', { direct: false }).code, 'ERR_IMAGE_LOCKED')
})
