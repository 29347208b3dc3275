// What the page may ask for. Knows nothing of Electron: main.mjs connects it to the window, serve.mjs to a browser.
import { mkdir, readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { createImage, drawMap, imageInfo, openImage, Qcow2Error } from 'qcow2'
import { Jobs } from './jobs.mjs'

/** A name of a disk, never a path: the page cannot reach another folder. */
const diskName = /^[\p{L}\p{N}][\p{L}\p{N} ._-]{0,99}\.(?:qcow2|img)$/u

/** By the name alone: what a raw disk begins with is its guest's doing, and may look like an image that names files of ours. */
const formatOf = (name) => (name.endsWith('.img') ? 'raw' : 'qcow2')

export class Disks {
  #folder
  #jobs
  #send

  /**
   * @param folder  where the disks are
   * @param send    tells the page something: { type: 'job', job } or { type: 'changed' }
   */
  constructor(folder, send) {
    this.#folder = folder
    this.#send = send
    this.#jobs = new Jobs((job) => send({ type: 'job', job }))
  }

  /** Carry out what the page asks for. Errors go over as data: what is thrown loses its code on the way. */
  async answer(verb, argument = {}) {
    try {
      if (!Object.hasOwn(verbs, verb)) throw new TypeError(`there is no '${verb}'`)
      await mkdir(this.#folder, { recursive: true })
      return { value: await verbs[verb](this.#parts, argument) }
    } catch (error) {
      const isTold = error instanceof Qcow2Error || error instanceof TypeError || error instanceof RangeError
      if (!isTold) console.error(error)
      return { error: { code: error.code, message: isTold ? error.message : 'That did not work.' } }
    }
  }

  /** Cancel what is running, and wait for its end: an image is whole, or is not there. */
  close() {
    return this.#jobs.close()
  }

  get #parts() {
    return {
      folder: this.#folder,
      jobs: this.#jobs,
      changed: () => this.#send({ type: 'changed' }),
      pathOf: (name) => {
        if (typeof name !== 'string' || !diskName.test(name)) {
          throw new TypeError('A name begins with a letter or digit, and ends in .qcow2 or .img.')
        }
        return join(this.#folder, name)
      },
    }
  }
}

const verbs = {
  list: async (parts) => ({ folder: parts.folder, disks: await allDisks(parts) }),

  async create({ pathOf, changed }, { name, size, backing }) {
    const path = pathOf(name)
    if (backing === undefined) {
      await createImage(path, { size, format: formatOf(name) })
    } else {
      await createImage(path, { backingFile: basename(pathOf(backing)), backingFormat: formatOf(backing) })
    }
    changed()
  },

  convert({ pathOf, jobs, changed }, { source, target, compress = false, rateLimit = 0 }) {
    const paths = [pathOf(source), pathOf(target)]
    const options = { sourceFormat: formatOf(source), format: formatOf(target), compress, rateLimit }
    return jobs.convert(...paths, options, changed)
  },

  jobs: ({ jobs }) => jobs.list(),

  cancel: ({ jobs }, { id }) => jobs.cancel(id),

  /** What deleting each snapshot would give back. Host bytes. */
  async snapshotSpace({ pathOf }, { name }) {
    const image = await openImage(pathOf(name), { format: formatOf(name), readOnly: true, forceShare: true })
    try {
      return (await image.snapshots.space()).map(({ id, exclusiveBytes }) => ({ id, exclusiveBytes }))
    } finally {
      await image.close()
    }
  },

  takeSnapshot: (parts, { name, title }) => change(parts, name, (snapshots) => snapshots.create(title)),
  async applySnapshot(parts, { name, id }) {
    // A branch shows what its base holds: it would change under it.
    const branch = (await allDisks(parts)).find(({ backingFile }) => backingFile === name)
    if (branch !== undefined)
      throw new TypeError(`${branch.name} stands on ${name}, which therefore stays as it is.`)
    await change(parts, name, (snapshots) => snapshots.apply({ id }))
  },

  deleteSnapshot: (parts, { name, id }) => change(parts, name, (snapshots) => snapshots.delete({ id })),

  async map({ pathOf }, { name }) {
    return (await drawMap(pathOf(name), { format: formatOf(name), forceShare: true })).svg
  },
}

async function change({ pathOf, changed }, name, work) {
  const image = await openImage(pathOf(name), { format: formatOf(name) })
  try {
    await work(image.snapshots)
  } finally {
    await image.close()
  }
  changed()
}

async function allDisks({ folder, pathOf }) {
  const names = (await readdir(folder)).filter((name) => diskName.test(name)).sort()
  return Promise.all(names.map((name) => describe(pathOf(name))))
}

/** A disk as the page shows it. One that cannot be read is listed with the reason. */
async function describe(path) {
  const name = basename(path)
  try {
    const info = await imageInfo(path, { format: formatOf(name), forceShare: true })
    const { format, virtualSize, actualSize, backingFile, encrypted = false, snapshots = [], qcow2 } = info
    return {
      name,
      format,
      virtualSize,
      actualSize,
      backingFile,
      encrypted,
      corrupt: qcow2?.corrupt ?? false,
      snapshots: snapshots.map(({ id, name: title, dateSeconds }) => ({ id, title, dateSeconds })),
    }
  } catch (error) {
    return { name, snapshots: [], problem: error.message }
  }
}
