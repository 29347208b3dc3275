import '../../../lib/block-queue.js'
import '../../../lib/index.js'

/** Prints whether importing the package alone has loaded the addon. */
const report = process.report.getReport() as unknown as { sharedObjects: string[] }
process.stdout.write(String(report.sharedObjects.some((path) => path.endsWith('.node'))))
