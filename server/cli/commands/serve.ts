import { Option, type Command } from 'commander'
import { resolve } from 'node:path'
import type { SyncServer } from '../../serve.ts'
import { secretOf } from '../centre.ts'
import {
  addCentreOptions,
  addQdrantOptions,
  centreOf,
  jsonOption,
  placeFlag,
  port,
  qdrantModelsOption,
  qdrantOf,
  type CentrePlace,
} from '../options.ts'
import { print, printError, printJson, table } from '../output.ts'
import { nextSignal } from '../signals.ts'

interface ServeCommandOptions {
  readonly port: number
  readonly host: string
  readonly json?: boolean
}

export function registerServe(root: Command): void {
  addQdrantOptions(
    addCentreOptions(root.command('serve').description('Run the sync server until Ctrl-C.')),
  )
    .addOption(qdrantModelsOption())
    .addOption(
      new Option('--port <port>', '0 takes a free one').env('PORT').argParser(port).default(7400),
    )
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
AGENTDB_SECRET signs tokens; without it the centre makes a secret and keeps it in its database.
PGlite is PostgreSQL inside this process: no fsync, so that a power cut may lose the last commits,
and one process at a time. Use PostgreSQL for anything that matters.
Without Qdrant, searches (POST /search/v1) read the rows themselves, exactly.

Examples:
  $ agentdb serve
  $ agentdb serve --port 0 --data ./centre --json
  $ DATABASE_URL=postgres://agentdb@db/agentdb agentdb serve --host 0.0.0.0`,
    )
    .action(async (options: ServeCommandOptions, command: Command) => {
      const place = centreOf(command)
      const qdrant = qdrantOf(command)
      const stop = nextSignal()
      // Loaded by this command alone: no other needs a web server.
      const { serve } = await import('../../serve.ts')
      await using server = await serve({
        port: options.port,
        host: options.host,
        secret: secretOf(),
        qdrantUrl: qdrant.url,
        qdrantApiKey: qdrant.apiKey,
        vectors: qdrant.vectors,
        ...(place.databaseUrl === undefined
          ? { dataFolder: place.dataFolder }
          : { databaseUrl: place.databaseUrl }),
      })
      announce(server, place, options)
      const signal = await stop
      if (options.json !== true) printError(`${signal}: closing`)
    })
}

function announce(
  server: SyncServer,
  place: CentrePlace,
  { json, host }: ServeCommandOptions,
): void {
  const { url, database } = server
  if (json === true) {
    printJson({
      url,
      database,
      data: place.dataFolder === undefined ? null : resolve(place.dataFolder),
      pid: process.pid,
    })
    return
  }
  const where = placeFlag(place)
  print(`AgentDB centre on ${url}\n`)
  print(
    table([
      ['database', database === 'pglite' ? `PGlite in ${place.dataFolder}` : 'PostgreSQL'],
      ...(database === 'pglite'
        ? ([
            ['', 'it does not fsync: a power cut may lose the last commits'],
            ['', 'one process at a time: stop this one to add users and tokens'],
          ] as const)
        : []),
      ['add a user', `agentdb user add --email ada@example.com --username ada${where}`],
      ['get a token', `agentdb token --user ada@example.com --agent laptop${where}`],
      ['sync a store', `agentdb sync agent.db --url ${url} --token ...`],
    ]),
  )
  if (!['127.0.0.1', 'localhost', '::1'].includes(host))
    print('\n  Others can reach this address: put TLS in front, tokens travel in clear.')
  print('\n  Ctrl-C stops it.')
}
