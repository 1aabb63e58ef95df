/**
 * A sync server of whatever build this file lies in: `node --import tsx child-versioned-centre.ts OPTIONS`, the options of
 * `serve` as JSON. Is asked and answers as `child-versioned-agent.ts`.
 */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { AgentDBError } from '../../schema/errors.ts'
import { serve, type ServeOptions, type TokenOptions } from '../../server/index.ts'

const tell = (message: unknown): void => void writeSync(1, `${JSON.stringify(message)}\n`)

process.stdin.resume().once('end', () => process.exit())
const server = await serve(JSON.parse(process.argv[2] ?? '{}') as ServeOptions).catch(
  (error: unknown) => {
    tell({ failed: error instanceof AgentDBError ? error.code : String(error) })
    process.exit(1)
  },
)

const asked: Readonly<Record<string, (...of: never[]) => unknown>> = {
  token: (options: TokenOptions) => server.issueToken(options),
  async close() {
    await server.close()
    setImmediate(() => process.exit())
  },
}

tell({ opened: server.url })
for await (const line of createInterface({ input: process.stdin })) {
  const { n, ask, of } = JSON.parse(line) as { n: number; ask: string; of: never[] }
  try {
    tell({ n, answer: (await asked[ask]?.(...of)) ?? null })
  } catch (error) {
    tell({ n, failed: String(error) })
  }
}
