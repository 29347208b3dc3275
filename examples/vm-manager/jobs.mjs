// Conversions that run: each can be watched and cancelled.
import { basename } from 'node:path'
import { convertImage } from 'qcow2'

/** Milliseconds between two reports of one job: an eye needs no more. */
const reportEvery = 100

export class Jobs {
  #report
  #jobs = new Map()
  #lastId = 0

  /** @param report  called with a job whenever it has changed */
  constructor(report) {
    this.#report = report
  }

  list() {
    return [...this.#jobs.values()].map(({ job }) => job)
  }

  /** Start one. @returns the job, which goes on; `ended` is called when there is a new disk */
  convert(source, target, options, ended) {
    const id = ++this.#lastId
    const job = {
      id,
      source: basename(source),
      target: basename(target),
      state: 'running',
      bytesDone: 0,
      bytesTotal: 0,
    }
    const controller = new AbortController()
    let reported = 0
    const onProgress = ({ bytesDone, bytesTotal }) => {
      Object.assign(job, { bytesDone, bytesTotal })
      const now = performance.now()
      if (now - reported < reportEvery) return
      reported = now
      this.#report(job)
    }
    const finished = convertImage(source, target, { ...options, signal: controller.signal, onProgress }).then(
      () => this.#end(job, 'done', ended),
      (error) => {
        if (controller.signal.aborted) this.#end(job, 'cancelled')
        else this.#end({ ...job, message: error.message }, 'failed')
      },
    )
    this.#jobs.set(id, { job, controller, finished })
    return job
  }

  cancel(id) {
    this.#jobs.get(id)?.controller.abort()
  }

  async close() {
    const running = [...this.#jobs.values()]
    for (const { controller } of running) controller.abort()
    await Promise.all(running.map(({ finished }) => finished))
  }

  #end(job, state, ended) {
    this.#jobs.delete(job.id)
    this.#report({ ...job, state })
    ended?.()
  }
}
