import test from 'ava'
import { jsonText } from '../../lib/cli/json-text.js'

test('JSON has four blanks a level, one member a line, and empty lists over two lines', (t) => {
  const value = { a: 1, list: [1, 'two', { three: true }], none: [], left: undefined, inner: { none: {} } }
  t.is(
    jsonText(value),
    `{
    "a": 1,
    "list": [
        1,
        "two",
        {
            "three": true
        }
    ],
    "none": [
    ],
    "inner": {
        "none": {
        }
    }
}`,
  )
})

test('the text is ASCII and means the same', (t) => {
  const value = { 'ü\u0000"\\\n\u007f': '🦆 disk' }
  const text = jsonText(value)
  t.regex(text, /^[\x20-\x7e\n]*$/)
  t.true(text.includes('\\u00FC'))
  t.deepEqual(JSON.parse(text), value)
})
