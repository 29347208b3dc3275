import { UsageError } from './usage-error.js'

/** One `key=value` of an option list. A bare key has the value undefined. */
export type ListedOption = { readonly key: string; readonly value: string | undefined }

/**
 * Take a list as `-o`, `--object` and `--image-opts` have it apart: commas separate, `,,` is a comma in a value.
 * @throws UsageError  an empty list, or a comma at either end
 */
export function parseOptionList(list: string): ListedOption[] {
  const items = splitAtCommas(list)
  if (items.some((item) => item === '')) throw new UsageError(`Invalid option list: ${list}`)
  return items.map((item) => {
    const equals = item.indexOf('=')
    return equals < 0
      ? { key: item, value: undefined }
      : { key: item.slice(0, equals), value: item.slice(equals + 1) }
  })
}

function splitAtCommas(list: string): string[] {
  // A comma counts where an even number of commas stands in front of it.
  return list.split(/(?<=(?:^|[^,])(?:,,)*),(?!,)/).map((item) => item.replaceAll(',,', ','))
}

/** The value as it stands in a list. */
export function escapeValue(value: string): string {
  return value.replaceAll(',', ',,')
}
