/**
 * A server in a process of its own, to be measured from outside: `node --import tsx child-server.ts OPTIONS`. With options
 * of `serve` it is a sync server; with `{"plain": true}` one of Node that holds every answer open and sends nothing.
 * Prints its URL when it listens, and on each line of its input the bytes that it holds: resident, and of objects.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { serve, type ServeOptions } from '../../server/index.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const options = JSON.parse(process.argv[2] ?? '{}') as ServeOptions & { readonly plain?: boolean }
const url = options.plain === true ? await servePlain() : (await serve(options)).url
console.log(`listening ${url}`)

const lines = createInterface({ input: process.stdin })
lines.on('close', () => process.exit())
lines.on('line', (asked) => {
  for (let n = 0; n < 3; n++) collect()
  const { rss, heapUsed, external } = process.memoryUsage()
  console.log(`memory ${asked} ${rss} ${heapUsed + external}`)
})

async function servePlain(): Promise<string> {
  const server = createServer((_request, response) => response.writeHead(200).flushHeaders())
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
