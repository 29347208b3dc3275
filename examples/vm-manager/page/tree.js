import { dateText, element, sizeText } from './element.js'

/** The disk that nothing in the folder lies under: where the tree of `name` begins. */
function rootOf(disks, name) {
  const seen = new Set()
  let disk = disks.get(name)
  while (disk?.backingFile !== undefined && disks.has(disk.backingFile) && !seen.has(disk.name)) {
    seen.add(disk.name)
    disk = disks.get(disk.backingFile)
  }
  return disk
}

/**
 * A disk with its snapshots, and the branches that stand on it, each with its own.
 * @param disks   by name
 * @param chosen  name of the disk that is shown
 * @param space   of the chosen disk's snapshots, by id: bytes that deleting it frees
 * @returns elements
 */
export function drawTree({ disks, chosen, space, onChoose, onApply, onDelete }) {
  const branchesOf = (name) => [...disks.values()].filter(({ backingFile }) => backingFile === name)

  function snapshotItem(disk, { id, title, dateSeconds }) {
    const details = [dateText(dateSeconds)]
    const freed = disk.name === chosen ? space.get(id) : undefined
    if (freed !== undefined) details.push(`deleting it frees ${sizeText(freed)}`)
    const buttons = [
      ['Restore', onApply, branchesOf(disk.name).length > 0],
      ['Delete', onDelete, false],
    ].map(([text, act, isOff]) =>
      element(
        'button',
        {
          type: 'button',
          className: 'small',
          disabled: isOff,
          'aria-label': `${text} snapshot ${title} of ${disk.name}`,
          onclick: () => act(disk, { id, title }),
        },
        text,
      ),
    )
    return element(
      'li',
      { className: 'snapshot' },
      element(
        'span',
        { className: 'what' },
        element('b', {}, title),
        ' ',
        element('span', { className: 'quiet' }, details.join(', ')),
      ),
      ...(disk.name === chosen ? [element('span', { className: 'actions' }, ...buttons)] : []),
    )
  }

  function diskItem(disk, above) {
    const inner = [
      ...disk.snapshots.map((snapshot) => snapshotItem(disk, snapshot)),
      // An image that stands on itself would have no end.
      ...(above.has(disk.name)
        ? []
        : branchesOf(disk.name).map((branch) => diskItem(branch, new Set([...above, disk.name])))),
    ]
    const name =
      disk.name === chosen
        ? element('b', { className: 'here', 'aria-current': 'true' }, disk.name)
        : element(
            'button',
            { type: 'button', className: 'link', onclick: () => onChoose(disk.name) },
            disk.name,
          )
    return element(
      'li',
      { className: 'disk' },
      name,
      ...(inner.length === 0 ? [] : [element('ul', {}, ...inner)]),
    )
  }

  const tree = element('ul', { className: 'tree' }, diskItem(rootOf(disks, chosen), new Set()))
  const isBase = branchesOf(chosen).length > 0 && disks.get(chosen).snapshots.length > 0
  const note = element(
    'p',
    { className: 'quiet' },
    `Branches stand on ${chosen}: it cannot go back to a snapshot.`,
  )
  return isBase ? [tree, note] : [tree]
}
