/** Arithmetic on integers up to 2^53, where the bitwise operators of the language stop at 32 bits. */

/** Largest multiple of `unit` that is not above `value`. */
export function alignDown(value: number, unit: number): number {
  return value - (value % unit)
}

/** Smallest multiple of `unit` that is not below `value`. */
export function alignUp(value: number, unit: number): number {
  const rest = value % unit
  return rest === 0 ? value : value + (unit - rest)
}

export function isAligned(value: number, unit: number): boolean {
  return value % unit === 0
}

/** How many units of `unit` bytes it takes to hold `value` bytes. */
export function divideRoundingUp(value: number, unit: number): number {
  return Math.ceil(value / unit)
}

/** Whether `value` is an integer >= 0 that a number holds exactly. */
export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}
