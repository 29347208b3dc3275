import test from 'ava'
import {
  besideImage,
  hasProtocol,
  isNetworkName,
  nameSeenFrom,
  protocolOf,
} from '../../lib/image/path-names.js'

test('a colon before the first slash makes a protocol', (t) => {
  for (const name of ['json:{"driver":"raw"}', 'nbd://host/x', 'file:base', 'http://h/i', 'c:disk', ':']) {
    t.true(hasProtocol(name, false), name)
    t.true(hasProtocol(name, true), name)
  }
  t.is(protocolOf('json:{}', false), 'json')
  t.is(protocolOf('nbd://host/x', true), 'nbd')
  for (const name of ['base.qcow2', '/a:b', './a:b', 'dir/c:d']) {
    t.false(hasProtocol(name, false), name)
    t.false(hasProtocol(name, true), name)
  }
})

test('the drive of a path is no protocol on Windows, and is one elsewhere', (t) => {
  for (const name of ['C:\\base', 'c:/base']) {
    t.false(hasProtocol(name, true), name)
    t.true(hasProtocol(name, false), name)
  }
  // From the folder that happens to be current on that drive, or a second stream of a file.
  for (const name of ['C:base', 'base:stream']) t.true(hasProtocol(name, true), name)
  t.false(hasProtocol('dir\\a:b', true))
  t.true(hasProtocol('dir\\a:b', false))
})

test('a relative name stands beside its image, whatever separates folders', (t) => {
  t.is(besideImage('C:\\images\\disk.qcow2', 'base', true), 'C:\\images\\base')
  t.is(besideImage('C:/images/disk.qcow2', 'base', true), 'C:/images/base')
  t.is(besideImage('C:\\images\\disk.qcow2', 'D:\\base', true), 'D:\\base')
  t.is(besideImage('disk.qcow2', 'base', true), 'base')
  t.is(besideImage('a\\b', 'base', false), 'base')
  t.is(besideImage('sub/../disk.qcow2', 'base', false), 'sub/../base')
  t.is(besideImage('sub/disk.qcow2', '/base', false), '/base')
  t.is(besideImage('sub/disk.qcow2', 'json:{}', false), 'json:{}')
  t.is(besideImage('/images/disk.qcow2', 'base', false), '/images/base')
})

test('an image names a neighbour alone, and what lies elsewhere in full', (t) => {
  t.is(nameSeenFrom('/images', '/images/base', false), 'base')
  t.is(nameSeenFrom('/images', '/images/a:b', false), './a:b')
  t.is(nameSeenFrom('/images', '/other/base', false), '/other/base')
  t.is(nameSeenFrom('C:\\images', 'C:\\images\\old\\base', true), 'old/base')
  t.is(nameSeenFrom('C:\\images', 'C:\\other\\base', true), 'C:\\other\\base')
  t.is(nameSeenFrom('C:\\images', 'D:\\base', true), 'D:\\base')
})

test('what names a server or a device is known by two slashes, on Windows', (t) => {
  for (const name of ['\\\\server\\share\\x', '//server/share/x', '\\\\.\\PhysicalDrive0', '\\\\?\\C:\\x']) {
    t.true(isNetworkName(name, true), name)
    t.false(isNetworkName(name, false), name)
  }
  t.false(isNetworkName('C:\\x', true))
})
