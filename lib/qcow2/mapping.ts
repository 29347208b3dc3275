import type { Mapping } from '../queue/format-image.js'
import type { MappedRun } from './l2-tables.js'
import type { Parts } from './parts.js'

/** What a run stores, as the guest's view asks for it. @param guest  its first byte */
export function mappingOf({ geometry, data }: Parts, { entry, length }: MappedRun, guest: number): Mapping {
  const within = guest % geometry.clusterSize
  const isEncrypted = data.encrypted === true
  switch (entry.type) {
    case 'normal': {
      const place = { type: 'data', length, hostOffset: entry.host + within } as const
      return isEncrypted ? { ...place, encrypted: true } : place
    }
    case 'zero': {
      const isShown = entry.host !== undefined && !isEncrypted
      return { type: 'zero', length, hostOffset: isShown ? entry.host + within : undefined }
    }
    case 'compressed':
      return { type: 'compressed', length }
    case 'unallocated': {
      const isShown = entry.host !== undefined && !isEncrypted
      return { type: 'unallocated', length, ...(isShown ? { hostOffset: entry.host + within } : {}) }
    }
  }
}
