/** What a report may hold. */
export type Json =
  string | number | bigint | boolean | readonly Json[] | { readonly [key: string]: Json | undefined }

/** JSON as qemu-img prints it: four blanks a level, empty lists over two lines, ASCII only. Keys that are undefined are left out. */
export function jsonText(value: Json, indent = ''): string {
  const inner = `${indent}    `
  if (Array.isArray(value)) {
    return bracket(
      '[',
      ']',
      value.map((item: Json) => `${inner}${jsonText(item, inner)}`),
      indent,
    )
  }
  if (typeof value === 'bigint') return String(value)
  if (typeof value !== 'object') return asciiOnly(JSON.stringify(value))
  const members = Object.entries(value).filter((entry): entry is [string, Json] => entry[1] !== undefined)
  const lines = members.map(
    ([key, item]) => `${inner}${asciiOnly(JSON.stringify(key))}: ${jsonText(item, inner)}`,
  )
  return bracket('{', '}', lines, indent)
}

function bracket(open: string, close: string, lines: readonly string[], indent: string): string {
  return [open, ...(lines.length > 0 ? [lines.join(',\n')] : []), `${indent}${close}`].join('\n')
}

function asciiOnly(quoted: string): string {
  return quoted.replace(/[\u007f-\uffff]/g, (unit) => {
    return `\\u${unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`
  })
}
