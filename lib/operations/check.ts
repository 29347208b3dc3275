import type { LongWork } from '../base/abort.js'
import { invalid } from '../base/errors.js'
import {
  booleanOption,
  checkOptions,
  checkPath,
  enumOption,
  functionOption,
  longWorkSchema,
} from '../base/options.js'
import { cacheOption, type CacheMode, type CacheOptions, defaultCache } from '../image/cache-modes.js'
import { openFailure } from '../image/open-failure.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import { checkQcow2, type CheckResult, type Finding } from '../qcow2/check.js'
import { openLocked } from './locked-file.js'

export type CheckImageOptions = LongWork & {
  /** Default: probed. */
  readonly format?: ImageFormat
  /** 'leaks': free what nothing refers to. 'all': put right whatever can be. Default: change nothing. */
  readonly repair?: 'leaks' | 'all'
  /** Check an image that somebody writes to: what is found may not be so. Not with repair. */
  readonly forceShare?: boolean
  readonly cache?: CacheMode | CacheOptions
  readonly locking?: 'auto' | 'off'
  /** Told of every finding at once, in order. */
  readonly onFinding?: (finding: Finding) => void
}

/** A format of which there is nothing to check. */
export type NothingToCheck = { readonly supported: false; readonly format: 'raw' }

/**
 * Look for what is wrong with the metadata of an image. Nothing it refers to is opened; without `repair` nothing is written.
 * @returns what is wrong, after a repair what still is
 * @throws as openImage; images with features that are not supported are checked too
 */
export async function checkImage(
  path: string,
  options?: CheckImageOptions,
): Promise<CheckResult | NothingToCheck> {
  checkPath('checkImage', path)
  const given = checkOptions('checkImage', options, {
    format: enumOption(imageFormats),
    repair: enumOption(['leaks', 'all']),
    forceShare: booleanOption,
    cache: cacheOption,
    locking: enumOption(['auto', 'off']),
    onFinding: functionOption<(finding: Finding) => void>(),
    ...longWorkSchema,
  })
  const { repair, forceShare = false, signal, onProgress, onFinding } = given
  if (forceShare && repair !== undefined) {
    throw invalid(
      'checkImage: forceShare is not for repairs: two writers destroy an image',
      'ERR_INVALID_OPTION',
    )
  }
  signal?.throwIfAborted()
  const readOnly = repair === undefined
  const backend = await openLocked(path, given.format, {
    readOnly,
    forceShare,
    // A repair writes single entries, whatever the host's units are.
    cache: readOnly ? (given.cache ?? defaultCache) : { ...given.cache, ...defaultCache },
    locking: given.locking !== 'off',
  })
  if (backend === undefined) return { supported: false, format: 'raw' }
  try {
    return await checkQcow2(backend, {
      ...(repair === undefined ? {} : { repair }),
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
      ...(onFinding === undefined ? {} : { onFinding }),
    }).catch((error: unknown) => {
      throw openFailure(path, error)
    })
  } finally {
    await backend.close()
  }
}
