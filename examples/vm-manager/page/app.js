// The page. It asks through window.disks (preload.cjs), and is told of changes and progress.
import { ask as askUser } from './dialog.js'
import { element, sizeText } from './element.js'
import { showJob } from './jobs.js'
import { drawTree } from './tree.js'

const at = (id) => document.getElementById(id)

let disks = new Map()
let chosen
/** Counts what was begun: an answer that comes after a newer question is not shown. */
let round = 0

async function ask(verb, argument) {
  const { value, error } = await window.disks.ask(verb, argument)
  if (error !== undefined) throw new Error(error.message)
  return value
}

function say(text, isProblem = false) {
  at('said').textContent = text
  at('said').classList.toggle('bad', isProblem)
}

/** Ask for the disks again, and show them. */
async function refresh() {
  const current = ++round
  try {
    const { folder, disks: found } = await ask('list')
    if (current !== round) return
    at('folder').textContent = folder
    disks = new Map(found.map((disk) => [disk.name, disk]))
    if (!disks.has(chosen)) chosen = found[0]?.name
    const hadFocus = document.activeElement !== document.body
    showList()
    await showDisk(current)
    if (hadFocus && document.activeElement === document.body) at('disk-name').focus()
  } catch (error) {
    say(error.message, true)
  }
}

function choose(name) {
  chosen = name
  showList()
  void showDisk(++round).catch((error) => say(error.message, true))
  at('disk-name').focus()
}

function showList() {
  at('no-disks').hidden = disks.size > 0
  at('disks').replaceChildren(
    ...[...disks.values()].map((disk) => {
      const used =
        disk.problem === undefined
          ? `${sizeText(disk.actualSize)} of ${sizeText(disk.virtualSize)}`
          : 'cannot be read'
      const share = element('meter', {
        max: disk.virtualSize ?? 1,
        value: disk.actualSize ?? 0,
        'aria-hidden': 'true',
      })
      return element(
        'li',
        {},
        element(
          'button',
          { type: 'button', onclick: () => choose(disk.name), 'aria-current': String(disk.name === chosen) },
          element('span', { className: 'name' }, disk.name),
          element('span', { className: 'quiet' }, used),
          share,
        ),
      )
    }),
  )
}

async function showDisk(current) {
  const disk = disks.get(chosen)
  at('disk').hidden = disk === undefined
  if (disk === undefined) return
  const isBroken = disk.problem !== undefined
  at('disk-name').textContent = disk.name
  at('disk-problem').hidden = !isBroken && !disk.corrupt
  at('disk-problem').textContent =
    disk.problem ?? 'This disk is marked as damaged: check and repair it before it is used.'
  for (const id of ['make-branch', 'convert']) at(id).disabled = isBroken
  at('take-snapshot').disabled = isBroken || disk.format !== 'qcow2'
  const facts = isBroken
    ? []
    : [
        ['Format', disk.encrypted ? `${disk.format}, encrypted` : disk.format],
        ['Size of the disk', sizeText(disk.virtualSize)],
        ['On this computer', sizeText(disk.actualSize)],
        ['Stands on', disk.backingFile ?? 'nothing'],
        ['Snapshots', String(disk.snapshots.length)],
      ]
  at('facts').replaceChildren(
    ...facts.map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value))),
  )
  showTree(disk, new Map())
  const [map, space] = await Promise.allSettled([
    isBroken ? Promise.reject(new Error(disk.problem)) : ask('map', { name: disk.name }),
    disk.snapshots.length === 0 ? [] : ask('snapshotSpace', { name: disk.name }),
  ])
  // Somebody has chosen another one meanwhile.
  if (current !== round) return
  showMap(disk, map)
  if (space.status === 'fulfilled') {
    showTree(disk, new Map(space.value.map(({ id, exclusiveBytes }) => [id, exclusiveBytes])))
  }
}

function showTree(disk, space) {
  const tree = drawTree({
    disks,
    chosen: disk.name,
    space,
    onChoose: choose,
    onApply: restore,
    onDelete: remove,
  })
  at('tree').replaceChildren(...tree)
}

/** As a picture of its own: what the words in it say cannot reach the page. */
function showMap(disk, { status, value, reason }) {
  const isThere = status === 'fulfilled'
  at('map').hidden = !isThere
  at('map').src = isThere ? `data:image/svg+xml,${encodeURIComponent(value)}` : 'data:,'
  at('map').alt = `Map of ${disk.name}`
  const [described] = isThere ? /<desc[^>]*>[^<]*<\/desc>/.exec(value) : []
  const words =
    described && new DOMParser().parseFromString(described, 'text/xml').documentElement.textContent
  at('map-words').textContent = words ?? reason?.message ?? ''
}

const nameField = (value, hint) => ({ name: 'name', label: 'Name', value, hint })

at('new-disk').addEventListener('click', () =>
  askUser({
    heading: 'New disk',
    button: 'Make it',
    fields: [
      nameField('disk.qcow2', 'Ends in .qcow2, or in .img for a raw disk.'),
      { name: 'size', label: 'Size in GiB', type: 'number', min: '0.001', step: 'any', value: '64' },
    ],
    run: async ({ name, size }) => {
      await ask('create', { name, size: Math.round((Number(size) * 2 ** 30) / 512) * 512 })
      chosen = name
      say(`${name} is there.`)
    },
  }),
)

at('make-branch').addEventListener('click', () => {
  const backing = chosen
  askUser({
    heading: `Branch of ${backing}`,
    text: `A new disk that shows what ${backing} holds, and keeps what changes to itself. ${backing} must not be written to from then on.`,
    button: 'Make it',
    fields: [nameField(`${backing.replace(/\.\w+$/, '')} branch.qcow2`)],
    run: async ({ name }) => {
      await ask('create', { name, backing })
      chosen = name
      say(`${name} stands on ${backing}.`)
    },
  })
})

at('take-snapshot').addEventListener('click', () => {
  const name = chosen
  askUser({
    heading: `Snapshot of ${name}`,
    button: 'Take it',
    fields: [{ name: 'title', label: 'What it is called', value: 'before the update', maxLength: 200 }],
    run: async ({ title }) => {
      await ask('takeSnapshot', { name, title })
      say(`Snapshot “${title}” is taken.`)
    },
  })
})

at('convert').addEventListener('click', () => {
  const source = chosen
  askUser({
    heading: `Convert ${source}`,
    text: 'Copies the disk, with all that it stands on, into a new one.',
    button: 'Begin',
    fields: [
      nameField(`${source.replace(/\.\w+$/, '')} copy.qcow2`, 'Ends in .qcow2, or in .img for a raw disk.'),
      { name: 'compress', label: 'Compress', type: 'checkbox', required: false },
      {
        name: 'limit',
        label: 'At most MiB a second',
        type: 'number',
        min: '0',
        value: '0',
        hint: '0: as fast as it goes.',
      },
    ],
    run: async ({ name, compress, limit }) => {
      const rateLimit = Number(limit) * 2 ** 20
      const wanted = { source, target: name, compress: compress === 'on', rateLimit }
      showJob(await ask('convert', wanted), cancelJob)
    },
  })
})

function restore(disk, { id, title }) {
  askUser({
    heading: `Restore “${title}”?`,
    text: `${disk.name} becomes what it was then. What it holds now is lost, unless you take a snapshot first.`,
    button: 'Restore',
    isDangerous: true,
    run: async () => {
      await ask('applySnapshot', { name: disk.name, id })
      say(`${disk.name} is as it was at “${title}”.`)
    },
  })
}

function remove(disk, { id, title }) {
  askUser({
    heading: `Delete snapshot “${title}”?`,
    text: `${disk.name} stays as it is now; what it was then can no longer be restored.`,
    button: 'Delete',
    isDangerous: true,
    run: async () => {
      await ask('deleteSnapshot', { name: disk.name, id })
      say(`Snapshot “${title}” is deleted.`)
    },
  })
}

const cancelJob = (id) => void ask('cancel', { id }).catch((error) => say(error.message, true))

const endings = {
  done: ({ target }) => `${target} is there.`,
  cancelled: ({ target }) => `Cancelled: nothing is left of ${target}.`,
  failed: ({ target, message }) => `${target} was not made: ${message}`,
}

window.disks.onTold((message) => {
  if (message.type === 'changed') void refresh()
  else {
    showJob(message.job, cancelJob)
    const ending = endings[message.job.state]
    if (ending !== undefined) say(ending(message.job), message.job.state === 'failed')
  }
})

for (const job of await ask('jobs')) showJob(job, cancelJob)
await refresh()
