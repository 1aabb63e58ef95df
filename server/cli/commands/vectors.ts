import { Option, type Command } from 'commander'
import { AgentDBError } from '../../../schema/errors.ts'
import { collections, type Collection } from '../../../schema/tables/embeddings.ts'
import type { Database } from '../../postgres/database.ts'
import { VectorOperations, type Progress } from '../../vectors/operate.ts'
import { vectorStatus, verifyCollection } from '../../vectors/report.ts'
import type { VectorStatus, Verdict } from '../../vectors/report.ts'
import { toldOf, VectorService } from '../../vectors/service.ts'
import { vectorSettings } from '../../vectors/settings.ts'
import { withCentre } from '../centre.ts'
import { ExitCode } from '../failure.ts'
import {
  addCentreOptions,
  addQdrantOptions,
  centreOf,
  jsonOption,
  qdrantOf,
  wholeNumber,
} from '../options.ts'
import { plural, print, printJson, printProgress, table } from '../output.ts'
import { Patience } from '../patience.ts'

interface VectorCommandOptions {
  readonly json?: true
  readonly collection?: Collection
  readonly model?: string
  readonly dimension?: number
  readonly dropOld?: true
  readonly force?: true
  readonly timeout?: number
}

export function registerVectors(root: Command): void {
  const vectors = root
    .command('vectors')
    .description('Vectors of the centre in Qdrant: how they stand to the rows, and rebuilding.')
  registerStatus(vectors)
  registerVerify(vectors)
  registerReindex(vectors)
  registerSwitchModel(vectors)
}

const collectionOption = (): Option =>
  new Option('--collection <name>', 'one of the four').choices([...collections])

const timeoutOption = (): Option =>
  new Option(
    '--timeout <seconds>',
    'give up when Qdrant has not followed by then; without it, never',
  ).argParser(wholeNumber)

function registerStatus(vectors: Command): void {
  addOptions(
    vectors.command('status').description('How far Qdrant follows, what it holds and refuses.'),
  )
    .addHelpText(
      'after',
      `
Exit code 1 where Qdrant does not answer.

Examples:
  $ QDRANT_URL=http://127.0.0.1:6333 agentdb vectors status
  $ agentdb vectors status --qdrant-url http://qdrant:6333 --database-url postgres://agentdb@db/agentdb --json`,
    )
    .action(async (options: VectorCommandOptions, command: Command) => {
      const status = await withVectors(command, false, ({ database, service }) =>
        vectorStatus(database, service.engine),
      )
      if (options.json === true) printJson(status)
      else print(statusText(status))
      if (status.qdrant !== 'ok') process.exitCode = ExitCode.failed
    })
}

function registerVerify(vectors: Command): void {
  addOptions(
    vectors
      .command('verify')
      .description('Compare rows and points in both directions, by id and content.'),
  )
    .addOption(collectionOption())
    .addOption(timeoutOption())
    .addHelpText(
      'after',
      `
Reads no vector: rows and points are compared by a digest. Servers may go on meanwhile. Exit code 1 where they differ;
agentdb vectors reindex makes them equal, but for rows that Qdrant refuses: agentdb vectors status says why.

Examples:
  $ agentdb vectors verify
  $ agentdb vectors verify --collection code_embeddings --json`,
    )
    .action(async (options: VectorCommandOptions, command: Command) => {
      const verdicts = await withVectors(
        command,
        true,
        async ({ database, service, operations, signal }) => {
          await service.caughtUp(signal)
          const found: Verdict[] = []
          for (const generation of await operations.live(options.collection)) {
            const { name, rowsTotal } = generation
            const onRows = (rows: number): void => {
              signal.throwIfAborted()
              show(options, name, rows, rowsTotal)
            }
            const caughtUp = (): Promise<void> => service.caughtUp(signal)
            const how = { caughtUp, onRows }
            found.push(await verifyCollection(database, service.engine, generation, how))
          }
          return found
        },
      )
      const isEqual = verdicts.every(holds)
      if (options.json === true) printJson({ isEqual, collections: verdicts })
      else print(verdicts.map(verdictText).join('\n') || 'there are no collections yet')
      if (!isEqual) process.exitCode = ExitCode.failed
    })
}

function registerReindex(vectors: Command): void {
  addOptions(
    vectors
      .command('reindex')
      .description('Fill fresh collections from the rows and switch to them.'),
  )
    .addOption(collectionOption())
    .addOption(timeoutOption())
    .addHelpText(
      'after',
      `
What is there serves until the fresh one is complete, then goes. Servers may go on; one of them does the work, or this
process where none runs. Started again, it goes on with what was begun.

Examples:
  $ agentdb vectors reindex
  $ agentdb vectors reindex --collection incident_knowledge --json`,
    )
    .action(async (options: VectorCommandOptions, command: Command) => {
      const names = await withVectors(command, true, async ({ service, operations, signal }) => {
        await service.caughtUp(signal)
        return await operations.reindex(options.collection, showing(options))
      })
      if (options.json === true) printJson({ collections: names })
      else print(`${plural(names.length, 'collection')} filled anew:\n${names.join('\n')}`)
    })
}

function registerSwitchModel(vectors: Command): void {
  addOptions(
    vectors
      .command('switch-model')
      .description('Make another model the usual one of a collection.'),
  )
    .addOption(collectionOption().makeOptionMandatory(true))
    .addOption(new Option('--model <name>', 'as the rows name it').conflicts('dropOld'))
    .addOption(
      new Option('--dimension <n>', 'where rows of the model have several').argParser(wholeNumber),
    )
    .option('--force', 'also where the model has no rows yet')
    .option('--drop-old', 'drop the collections of all models but the usual one')
    .addOption(timeoutOption())
    .addHelpText(
      'after',
      `
Searches that name no model mean the usual one. Vectors of the new model are what rows hold: embed first. The old model's
collection stays, and goes on being filled, until --drop-old; its rows stay in the database.

Examples:
  $ agentdb vectors switch-model --collection code_embeddings --model text-embedding-3-small
  $ agentdb vectors switch-model --collection code_embeddings --drop-old`,
    )
    .action(async (options: VectorCommandOptions, command: Command) => {
      const { collection, model } = options
      if (collection === undefined) return
      if ((model === undefined) === (options.dropOld === undefined))
        command.error('give --model or --drop-old')
      const result = await withVectors(command, true, async ({ service, operations, signal }) => {
        await service.caughtUp(signal)
        if (model === undefined) return { dropped: await operations.dropOld(collection) }
        const dimension = options.dimension ?? (await dimensionOf(operations, collection, model))
        const space = { collection, model, dimension }
        return await operations.switchModel(space, options.force === true, showing(options))
      })
      if (options.json === true) return printJson(result)
      if ('dropped' in result)
        return print(`${plural(result.dropped.length, 'collection')} dropped`)
      const { name, rows, left, before } = result
      print(`${collection} now means ${model ?? ''}, before ${before ?? 'none'}`)
      print(
        table([
          ['collection', name],
          ['of the model', plural(rows, 'row')],
          ['of others', `${plural(left, 'row')}, found by naming their model`],
        ]),
      )
    })
}

async function dimensionOf(
  operations: VectorOperations,
  collection: Collection,
  model: string,
): Promise<number> {
  const [only, ...more] = await operations.dimensionsOf(collection, model)
  if (only !== undefined && more.length === 0) return only
  throw new AgentDBError(
    only === undefined ? 'NOT_FOUND' : 'INVALID_OPTION',
    only === undefined
      ? `${collection} has no row of the model ${model}: embed first, or give --dimension and --force`
      : `rows of ${model} have ${[only, ...more].join(', ')} dimensions: give --dimension`,
  )
}

const addOptions = (command: Command): Command =>
  addQdrantOptions(addCentreOptions(command)).addOption(jsonOption())

interface Opened {
  readonly database: Database
  readonly service: VectorService
  readonly operations: VectorOperations
  /** Ends what takes longer than the command line allows. */
  readonly signal: AbortSignal
}

/** Opens the centre, and Qdrant if it answers; `works` where this process may be the one that writes. */
async function withVectors<T>(
  command: Command,
  works: boolean,
  work: (opened: Opened) => Promise<T>,
): Promise<T> {
  const { url, apiKey, vectors } = qdrantOf(command)
  if (url === undefined) return command.error('give --qdrant-url or QDRANT_URL')
  // What a server was configured to have, it asks for itself.
  const models = Object.fromEntries(collections.map((name) => [name, []]))
  const settings = vectorSettings({ ...vectors, models })
  return await withCentre(centreOf(command), async ({ database }) => {
    await using patience = new Patience(database, command.opts<VectorCommandOptions>().timeout)
    const { signal } = patience
    const service = new VectorService(database, { url, apiKey }, settings, (error) =>
      patience.tell(error instanceof Error ? error.message : String(error)),
    )
    if (works) {
      await service.engine.mustBeRecent().catch((error: unknown) => {
        throw toldOf(error)
      })
      service.start()
      patience.watch()
    }
    try {
      const operations = new VectorOperations(database, service, signal)
      return await work({ database, service, operations, signal })
    } finally {
      await service.close()
    }
  })
}

const showing =
  (options: VectorCommandOptions) =>
  (name: string, { rows, total, done }: Progress): void => {
    if (options.json !== true) printProgress(name, 'rows', { rows, total, done })
  }

const show = (options: VectorCommandOptions, name: string, rows: number, total: number): void =>
  showing(options)(name, { rows, total: Math.max(rows, total), done: rows >= total })

function statusText(status: VectorStatus): string {
  const behind =
    status.pending === 0
      ? 'nothing waits'
      : `${plural(status.pending, 'row')} waiting since ${status.pendingSince ?? ''}`
  const lines = [
    table([
      ['Qdrant', status.qdrant],
      ['position', `${status.position} of ${status.head}; ${behind}`],
      ['applied', status.appliedAt ?? 'never'],
      ['followed', status.isFollowed ? 'by a server' : 'by no server now: agentdb serve'],
      ...(status.error === null
        ? []
        : ([
            ['failures', `${status.failures} in a row`],
            ['error', `${status.errorAt ?? ''} ${status.error}`],
          ] as const)),
      ...(status.isForked
        ? ([['history', 'the centre went back or restarted: all is compared first']] as const)
        : []),
    ]),
    ...status.collections.map(
      (one) =>
        `\n${one.name}\n${table([
          ['state', `${one.state}${one.isDefault ? ', the usual model' : ''}`],
          ['rows', String(one.rows)],
          ['points', one.points === null ? 'not there' : String(one.points)],
          ['tombstones', one.tombstones === null ? 'not there' : String(one.tombstones)],
          ['dead letters', String(one.deadLetters)],
        ])}`,
    ),
    ...status.deadLetters.map(
      ({ name, id, reason }) => `\ndead letter ${id} of ${name}: ${reason}`,
    ),
  ]
  return lines.join('\n')
}

const holds = ({ missing, different, extra, refused }: Verdict): boolean =>
  [missing, different, extra, refused].every((ids) => ids.length === 0)

function verdictText(verdict: Verdict): string {
  const { name, rows, missing, different, extra, refused } = verdict
  if (holds(verdict)) return `${name}: equal, ${plural(rows, 'row')}`
  return [
    `${name}: DIFFERENT`,
    ...some('rows without a point', missing),
    ...some('points of another version', different),
    ...some('points without a row', extra),
    ...some('rows that Qdrant refuses', refused),
  ].join('\n')
}

const some = (what: string, ids: readonly string[]): string[] =>
  ids.length === 0 ? [] : [`  ${what}: ${ids.length} (${ids.slice(0, 3).join(', ')})`]
