import { writeFileSync } from 'node:fs'
import { randomWorkload } from './random-workload.js'
import { recordedFile } from './recorded-file.js'
import { record } from './workload.js'

/** Run a random workload on a file, and write down what the addon has logged. Usage: PATH DIRECT SEED LOG. */
const [path = '', direct = '', seed = '', log = ''] = process.argv.slice(2)
const workload = await randomWorkload(Number(seed), { steps: 60, clusterSize: 4096 })
const { events } = await record(workload, { disk: await recordedFile(path, workload, direct === 'true') })
writeFileSync(log, JSON.stringify(events.map((event) => ({ ...event, bytes: undefined }))))
