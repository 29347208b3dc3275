import { BlockQueue } from '../../../lib/queue/block-queue.js'

/** Takes locks and ends without giving them back. Usage: PATH */
const [path = ''] = process.argv.slice(2)
const queue = await BlockQueue.open(path, { readOnly: false, direct: false, syncPolicy: 'flush' })
process.stdout.write(String(queue.lock([100, 101, 201], [200])))
process.exit(0)
