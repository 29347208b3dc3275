import { encodeHeader } from '../../lib/qcow2/create-header.js'

/** The first cluster of an image of 1 MiB, as it is created. */
export function headerCluster(
  clusterBits: number,
  version: 2 | 3,
  backing: { readonly file: string; readonly format: string | undefined } | undefined,
  dataFile?: string,
): Uint8Array {
  return encodeHeader({
    version,
    size: 2 ** 20,
    clusterBits,
    refcountOrder: 4,
    lazyRefcounts: false,
    compressionType: 'zlib',
    l1Offset: 3 * 2 ** clusterBits,
    l1Entries: Math.ceil(2 ** 20 / (2 ** (clusterBits - 3) * 2 ** clusterBits)),
    refcountTableOffset: 2 ** clusterBits,
    refcountTableClusters: 1,
    backingFile: backing?.file,
    backingFormat: backing?.format,
    dataFile,
    dataFileRaw: dataFile !== undefined && backing === undefined,
  })
}
