import { element, sizeText } from './element.js'

const section = document.getElementById('jobs')
const list = document.getElementById('job-list')
const shown = new Map()
/** Ids. The answer to the question that began a job may come after its end. */
const ended = new Set()

/** Show a job as it is now; one that has ended goes. */
export function showJob(job, onCancel) {
  if (job.state !== 'running') {
    ended.add(job.id)
    shown.get(job.id)?.item.remove()
    shown.delete(job.id)
  }
  section.hidden = shown.size === 0 && ended.has(job.id)
  if (ended.has(job.id)) return
  const parts = shown.get(job.id) ?? begin(job, onCancel)
  if (job.bytesTotal > 0) {
    parts.bar.max = job.bytesTotal
    parts.bar.value = job.bytesDone
    const percent = Math.floor((100 * job.bytesDone) / job.bytesTotal)
    parts.text.textContent = `${percent} %, ${sizeText(job.bytesDone)} of ${sizeText(job.bytesTotal)}`
  }
}

function begin({ id, source, target }, onCancel) {
  const label = `${source} → ${target}`
  const bar = element('progress', { 'aria-label': `Converting ${source} to ${target}` })
  const text = element('span', { className: 'quiet' }, 'beginning')
  const cancel = element(
    'button',
    {
      type: 'button',
      className: 'small',
      'aria-label': `Cancel converting ${source} to ${target}`,
      onclick: () => {
        cancel.disabled = true
        onCancel(id)
      },
    },
    'Cancel',
  )
  const item = element('li', {}, element('span', { className: 'what' }, label), bar, text, cancel)
  list.append(item)
  const parts = { item, bar, text }
  shown.set(id, parts)
  return parts
}
