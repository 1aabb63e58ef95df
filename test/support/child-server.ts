/**
 * A sync server in a process of its own, made to be killed: `node --import tsx child-server.ts OPTIONS`, the options of
 * `serve` as JSON. Prints its URL when it listens.
 */
import { writeSync } from 'node:fs'
import { serve, type ServeOptions } from '../../server/index.ts'

process.stdin.resume().once('end', () => process.exit())
const server = await serve(JSON.parse(process.argv[2] ?? '{}') as ServeOptions)
writeSync(1, `listening ${server.url}\n`)
