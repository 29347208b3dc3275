/** What a finding is about; stable, to branch on. */
export type FindingKind =
  /** A cluster's refcount is higher than its references: space is wasted. */
  | 'leak'
  /** A cluster's refcount is lower than its references: it may be given to somebody else. */
  | 'refcount'
  /** An entry's COPIED flag disagrees with the refcount. */
  | 'copied-flag'
  /** An L1, L2 or refcount table entry that the format does not allow. */
  | 'invalid-entry'
  /** Something refers to what lies a cluster or more past the end of the file. */
  | 'beyond-end'
  /** More references than a refcount of this width can hold. */
  | 'overflow'
  | 'snapshot-table'
  | 'bitmaps'
  | 'refcount-block'
  /** Something could not be read, so that the check is not complete. */
  | 'check-error'
  /** A program that knows no bitmaps has written the image: nobody believes them any more. Nothing counted. */
  | 'stale-bitmaps'
  /** An announcement, nothing counted. */
  | 'note'

export type Finding = {
  readonly kind: FindingKind
  readonly repaired: boolean
  /** One line, in the words of qemu-img. */
  readonly text: string
  /** Number of the host cluster. */
  readonly cluster?: number
  readonly refcount?: number
  readonly reference?: number
  /** Byte offset of the entry in the file. */
  readonly offset?: number
}

/** The outcome of a check; after a repair, what is left. Plain numbers. */
export type CheckResult = {
  /** Whether the format has a check. */
  readonly supported: true
  corruptions: number
  leaks: number
  /** Things that could not be checked. */
  checkErrors: number
  /** The refcounts have to be built anew, which a repair of 'all' does and one of 'leaks' cannot. */
  needsRebuild: boolean
  corruptionsFixed: number
  leaksFixed: number
  /** End of the last cluster in use, bytes. */
  imageEndOffset: number
  /** Guest clusters, of the active disk. */
  totalClusters: number
  allocatedClusters: number
  /** Clusters that do not follow their predecessor in the file. */
  fragmentedClusters: number
  compressedClusters: number
  /** The first findings; all of them go to onFinding. */
  findings: Finding[]
}

/** So many findings are kept in the result: a damaged image has millions. */
export const findingsKept = 1000

export function emptyResult(totalClusters: number): CheckResult {
  return {
    supported: true,
    corruptions: 0,
    leaks: 0,
    checkErrors: 0,
    needsRebuild: false,
    corruptionsFixed: 0,
    leaksFixed: 0,
    imageEndOffset: 0,
    totalClusters,
    allocatedClusters: 0,
    fragmentedClusters: 0,
    compressedClusters: 0,
    findings: [],
  }
}

/** qemu-img's exit code for an outcome: 0 clean, 1 not checked in full, 2 corrupt, 3 leaks only. */
export function checkExitCode(result: CheckResult): 0 | 1 | 2 | 3 {
  if (result.checkErrors > 0) return 1
  if (result.corruptions > 0) return 2
  return result.leaks > 0 ? 3 : 0
}

/** The line of statistics, in the words of qemu-img; undefined where it prints none. */
export function checkStatistics(result: CheckResult): string | undefined {
  const { totalClusters, allocatedClusters, fragmentedClusters, compressedClusters } = result
  if (totalClusters === 0 || allocatedClusters === 0) return undefined
  const allocated = percentage(allocatedClusters, totalClusters)
  const fragmented = percentage(fragmentedClusters, allocatedClusters)
  const compressed = percentage(compressedClusters, allocatedClusters)
  return `${allocatedClusters}/${totalClusters} = ${allocated}% allocated, ${fragmented}% fragmented, ${compressed}% compressed clusters`
}

/** With two digits, rounded as C's printf does: a tie goes to the even digit, where toFixed rounds it up. */
function percentage(part: number, whole: number): string {
  const exact = (part * 100) / whole
  const hundredths = exact * 100
  // only eighths are ties in binary
  const tie = Number.isInteger(exact * 8) && hundredths % 1 === 0.5
  if (!tie) return exact.toFixed(2)
  const below = Math.floor(hundredths)
  return ((below % 2 === 0 ? below : below + 1) / 100).toFixed(2)
}
