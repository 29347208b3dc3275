const units = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']

/** A size for people, three digits as in `196 KiB`, the way qemu-img rounds and prints them. */
export function formatSize(bytes: number): string {
  // The unit changes at 1000, not at 1024, so that never more than three digits stand in front of it.
  let unit = 0
  while (unit < units.length - 1 && bytes >= 1000 * 1024 ** unit) unit++
  return `${threeDigits(bytes / 1024 ** unit)} ${units[unit] ?? ''}B`
}

/** printf's %.3g for numbers from 0 up to some thousands. */
function threeDigits(value: number): string {
  const [digits = '', exponent] = value.toPrecision(3).split('e')
  const short = digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits
  return exponent === undefined ? short : `${short}e${exponent.replace(/^([+-])(\d)$/, '$10$2')}`
}
