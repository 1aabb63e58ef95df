import { InvalidArgumentError, Option, type Command } from 'commander'
import { AgentDBError, preview } from '../../../schema/errors.ts'
import { tableNames, tableOfName } from '../../../schema/tables.ts'
import type { AgentDB, Conflict, ConflictState, Values } from '../../../src/index.ts'
import { jsonOption } from '../options.ts'
import { duration, plural, print, printError, printJson, table } from '../output.ts'
import { openStore } from '../store.ts'

interface ConflictCommandOptions {
  readonly store: string
  readonly json?: boolean
}

interface ListCommandOptions extends ConflictCommandOptions {
  readonly state?: ConflictState
  readonly table?: string
  readonly row?: string
  readonly limit: number
}

const states: readonly ConflictState[] = [
  'rejected',
  'dependency_failed',
  'superseded',
  'merged',
  'overwritten',
  'blocked',
]

export function registerConflicts(root: Command): void {
  const conflicts = root
    .command('conflicts')
    .description('Writes that the centre could not simply apply, for you to decide.')
    .helpCommand(false)
    .addHelpText(
      'after',
      `
Works without the centre, and beside an agent that has the store open: what is retried goes out with its next sync.

Examples:
  $ agentdb conflicts list --store agent.db
  $ agentdb conflicts show 01a1fe9d-8e71-74b2-8652-d10f8c508ad5 --store agent.db`,
    )
  registerList(conflicts)
  registerShow(conflicts)
  registerRetry(conflicts)
  registerDiscard(conflicts)
}

const storeOption = (): Option =>
  new Option('--store <file>', 'file of the store').makeOptionMandatory()

function registerList(conflicts: Command): void {
  conflicts
    .command('list')
    .description('List them, newest first.')
    .addOption(storeOption())
    .addOption(new Option('--state <state>', 'only those in this state').choices(states))
    .addOption(new Option('--table <table>', 'only those of this table').choices(tableNames))
    .option('--row <id>', 'only those of this row')
    .addOption(new Option('--limit <count>', 'at most so many').argParser(count).default(100))
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
rejected, dependency_failed  it did not happen: retry it, perhaps with a --patch, or discard it
superseded, merged           a concurrent change won, in whole or in part
overwritten                  a value was overwritten by a concurrent change
blocked                      its outcome has not arrived: sync first

Examples:
  $ agentdb conflicts list --store agent.db
  $ agentdb conflicts list --store agent.db --state rejected --table incidents --json`,
    )
    .action(async ({ store, json, ...filter }: ListCommandOptions) => {
      await using db = await openStore(store)
      const found = db.syncConflicts.list({ ...filter, limit: filter.limit + 1 })
      const shown = found.slice(0, filter.limit)
      const more = found.length > shown.length
      if (json === true) return printJson({ conflicts: shown.map(plain), more })
      if (shown.length === 0) return print('no conflicts')
      print(grid([['id', 'state', 'write', 'reason', 'age'], ...shown.map(listLine)]))
      return printError(
        `${more ? `the newest ${shown.length}; --limit shows more` : plural(shown.length, 'conflict')}; both sides of one: agentdb conflicts show <id> --store ${store}`,
      )
    })
}

function registerShow(conflicts: Command): void {
  conflicts
    .command('show')
    .description('Show one with mine, theirs and what was before, side by side.')
    .argument('<id>', 'as agentdb conflicts list shows it')
    .addOption(storeOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
A star marks what differs between mine and theirs. Long values are cut; --json has them whole.

Example:
  $ agentdb conflicts show 01a1fe9d-8e71-74b2-8652-d10f8c508ad5 --store agent.db`,
    )
    .action(async (id: string, { store, json }: ConflictCommandOptions) => {
      await using db = await openStore(store)
      const conflict = mustGet(db, id)
      if (json === true) printJson(plain(conflict))
      else print(text(conflict))
    })
}

function registerRetry(conflicts: Command): void {
  conflicts
    .command('retry')
    .description('Write mine again, on the row as it now is, and remove the record.')
    .argument('<id>', 'as agentdb conflicts list shows it')
    .addOption(storeOption())
    .addOption(
      new Option('--patch <json>', 'columns to add, or to have another value').argParser(patchOf),
    )
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
It is checked like any other write; one that is refused here leaves the record as it was.
Where the centre refused the id itself, give a new one in the patch.

Examples:
  $ agentdb conflicts retry 01a1fe9d-8e71-74b2-8652-d10f8c508ad5 --store agent.db
  $ agentdb conflicts retry 01a1fe9d-8e71-74b2-8652-d10f8c508ad5 --store agent.db --patch '{"name":"deploy (eu-west)"}'`,
    )
    .action(
      async (
        id: string,
        { store, patch, json }: ConflictCommandOptions & { patch?: Record<string, unknown> },
      ) => {
        await using db = await openStore(store)
        const { table: name, rowId } = mustGet(db, id)
        const row = db.syncConflicts.retry(id, withVectors(name, patch ?? {}))
        if (json === true) return printJson({ retried: id, table: name, row: plain(row ?? null) })
        return print(
          row === undefined
            ? `deleted ${name} ${rowId} again; the next sync sends it`
            : `wrote ${name} ${String(row['id'])} again; the next sync sends it`,
        )
      },
    )
}

function registerDiscard(conflicts: Command): void {
  conflicts
    .command('discard')
    .description('Remove records: what stands at the centre is right.')
    .argument('<id...>', 'as agentdb conflicts list shows them')
    .addOption(storeOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
All of them or, where one is unknown or still waits for its outcome, none.

Example:
  $ agentdb conflicts discard 01a1fe9d-8e71-74b2-8652-d10f8c508ad5 --store agent.db`,
    )
    .action(async (ids: string[], { store, json }: ConflictCommandOptions) => {
      await using db = await openStore(store)
      db.transaction(() => {
        for (const id of ids) db.syncConflicts.discard(id)
      })
      if (json === true) printJson({ discarded: ids })
      else print(`discarded ${plural(ids.length, 'conflict')}`)
    })
}

function count(value: string): number {
  const parsed = Number(value)
  if (!Number.isSafeInteger(parsed) || parsed < 1)
    throw new InvalidArgumentError('It must be a whole number from 1')
  return parsed
}

function patchOf(value: string): Record<string, unknown> {
  try {
    const parsed = JSON.parse(value) as unknown
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>
  } catch {
    // Said below.
  }
  throw new InvalidArgumentError(`It must be a JSON object, such as '{"title":"another"}'`)
}

/** JSON has no vectors; a list of numbers stands for one. */
const withVectors = (name: string, patch: Values): Values =>
  Object.fromEntries(
    Object.entries(patch).map(([column, value]) => [
      column,
      Array.isArray(value) && tableOfName(name)?.columns[column]?.shape.kind === 'vector'
        ? Float32Array.from(value as number[])
        : value,
    ]),
  )

/** The other way round, for JSON. */
function plain(value: object | null): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, member: unknown) =>
      member instanceof Float32Array ? [...member] : member,
    ),
  )
}

function mustGet(db: AgentDB, id: string): Conflict {
  const found = db.syncConflicts.get(id)
  if (found === undefined)
    throw new AgentDBError('NOT_FOUND', `${db.path} has no conflict ${preview(id)}`)
  return found
}

const ageOf = (at: string): string => duration(Math.max(0, Date.now() - Date.parse(at)))

const listLine = ({ id, state, op, table: name, reason, at }: Conflict): string[] => [
  id,
  state,
  `${op ?? 'update'} ${name}`,
  reason ?? '',
  ageOf(at),
]

/** Columns as wide as their longest value. */
function grid(lines: readonly (readonly string[])[]): string {
  const widths = (lines[0] ?? []).map((_, i) =>
    Math.max(...lines.map((line) => (line[i] ?? '').length)),
  )
  return lines
    .map((line) =>
      line
        .map((value, i) => value.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

function text(conflict: Conflict): string {
  const { id, at, state, op, table: name, rowId, reason, sqlstate, constraint } = conflict
  const why = [reason, sqlstate, constraint].filter((part) => part !== null)
  const facts: [string, string | null][] = [
    ['write', `${op ?? 'update'} ${name} ${rowId}`],
    ['state', state],
    ['reason', why.join(', ') || null],
    ['message', conflict.message],
    ['needed', conflict.dependsOn],
    ['at', `${at}, ${ageOf(at)} ago`],
    ['transaction', conflict.transactionId],
    ['conflict', id],
  ]
  return [
    table(facts.filter((fact): fact is [string, string] => fact[1] !== null)),
    '',
    sides(conflict),
  ].join('\n')
}

/** Most characters of a value in the table. */
const VALUE_WIDTH_MAX = 36

/** The three sides of each column that the write was about. */
function sides({ mine, base, theirs, state }: Conflict): string {
  const wasWritten = state === 'rejected' || state === 'dependency_failed' || state === 'blocked'
  // Of a refused write, theirs is the whole row: only what was to be written is at stake.
  const shown = mine === null ? { ...base, ...theirs } : wasWritten ? mine : { ...mine, ...theirs }
  const names = Object.keys(shown)
  if (names.length === 0) return 'no values'
  return grid([
    ['', 'column', 'before', 'mine', 'theirs'],
    ...names.map((name) => [
      theirs !== null && shownAs(mine, name) !== shownAs(theirs, name) ? '*' : '',
      name,
      cut(shownAs(base, name)),
      cut(shownAs(mine, name)),
      cut(shownAs(theirs, name)),
    ]),
  ])
}

/** Empty where a side does not say; `null` is a value. */
const shownAs = (side: Values | null, name: string): string =>
  side === null || !Object.hasOwn(side, name)
    ? ''
    : JSON.stringify(side[name] instanceof Float32Array ? [...side[name]] : side[name])

const cut = (value: string): string =>
  value.length <= VALUE_WIDTH_MAX ? value : `${value.slice(0, VALUE_WIDTH_MAX - 3)}...`
