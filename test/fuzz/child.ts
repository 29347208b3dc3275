import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { obey, type Order } from './campaign.js'
import type { Sample } from './sample-images.js'

// A process of a campaign: tries one unsound image after the other, as it is told to.

let samples: Sample[] | undefined

process.on('message', (order: Order) => {
  samples ??= readFileSync(join(order.folder, 'names'), 'utf8')
    .split(',')
    .map((name) => ({ name, bytes: readFileSync(join(order.folder, `${name}.sample`)) }))
  // What fails here is a fault of the harness: it ends the process, which is told of.
  void obey(order, samples, (word) => process.send?.(word))
})
