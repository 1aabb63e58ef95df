import type { Command } from 'commander'
import { sql } from 'kysely'
import { allTables } from '../../../schema/tables.ts'
import type { AgentDB } from '../../../src/index.ts'
import { connect } from '../../../sync/index.ts'
import { ExitCode } from '../failure.ts'
import { addRemoteOptions, jsonOption } from '../options.ts'
import { duration, plural, print, printJson, table } from '../output.ts'
import { openStore } from '../store.ts'

interface StatusCommandOptions {
  readonly url?: string
  readonly token?: string
  readonly verify?: boolean
  readonly json?: boolean
}

interface StoreReport {
  readonly path: string
  readonly userId: string
  /** Null while the store has never met the centre. */
  readonly email: string | null
  readonly agentId: string
  readonly clientId: string
  readonly pending: number
  readonly oldestPendingAgeMs: number | null
  readonly position: number
  readonly history: string | null
  readonly conflicts: Readonly<Record<string, number>>
  readonly tables: Readonly<Record<string, { readonly rows: number; readonly last: string | null }>>
}

interface Verification {
  readonly equal: boolean
  readonly differing: readonly string[]
  readonly rows: number
  readonly position: number
}

export function registerStatus(root: Command): void {
  addRemoteOptions(
    root
      .command('status')
      .description('Show what a store holds, and what it waits for.')
      .argument('<store>', 'file of the store'),
    false,
  )
    .option('--verify', 'pull, then compare checksums with the centre; needs --url and --token')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Works beside an agent that has the store open; --verify does not.
Ends with 1 when --verify finds a difference.

Examples:
  $ agentdb status agent.db
  $ agentdb status agent.db --verify --url http://127.0.0.1:7400 --token eyJ...`,
    )
    .action(async (path: string, options: StatusCommandOptions, command: Command) => {
      const { url, token, verify } = options
      if (verify === true && (url === undefined || token === undefined))
        command.error('--verify needs --url and --token')
      await using db = await openStore(path)
      const verification =
        verify === true && url !== undefined && token !== undefined
          ? await verifyStore(db, url, token)
          : undefined
      const report = await readReport(db)
      if (options.json === true) printJson({ ...report, verification: verification ?? null })
      else print(text(report, verification))
      if (verification?.equal === false) process.exitCode = ExitCode.failed
    })
}

async function readReport(db: AgentDB): Promise<StoreReport> {
  const state = await sql<{
    client_id: string
    nonce: string | null
    position: number
    provisional: number
  }>`SELECT client_id, nonce, position, provisional FROM sync_state`.execute(db.kysely)
  const queue = await sql<{
    count: number
    oldest: number | null
  }>`SELECT count(*) AS count, min(clock) AS oldest FROM sync_tx`.execute(db.kysely)
  const [own] = state.rows
  const oldest = queue.rows[0]?.oldest ?? null
  const conflicts: Record<string, number> = {}
  for (const { state: kind } of db.syncConflicts.list())
    conflicts[kind] = (conflicts[kind] ?? 0) + 1
  return {
    path: db.path,
    userId: db.userId,
    email: own?.provisional === 0 ? (db.users.find(db.userId)?.email ?? null) : null,
    agentId: db.agentId,
    clientId: own?.client_id ?? '',
    pending: queue.rows[0]?.count ?? 0,
    // The store's clock counts microseconds.
    oldestPendingAgeMs: oldest === null ? null : Math.max(0, Date.now() - oldest / 1000),
    position: own?.position ?? 0,
    history: own?.nonce ?? null,
    conflicts,
    tables: await readTables(db),
  }
}

async function readTables(db: AgentDB): Promise<StoreReport['tables']> {
  const tables: Record<string, { rows: number; last: string | null }> = {}
  for (const { name, number, columns } of allTables) {
    const times = ['updated_at', 'created_at', 'queued_at', 'started_at']
    const time = times.find((column) => Object.hasOwn(columns, column))
    const { rows } = await sql<{ rows: number; last: string | null }>`
      SELECT count(*) AS rows, ${time === undefined ? sql`NULL` : sql`max(${sql.ref(time)})`} AS last FROM ${sql.table(name)} t
      WHERE NOT EXISTS (SELECT 1 FROM sync_stub s WHERE s.id = t.id AND s.tbl = ${number})`.execute(
      db.kysely,
    )
    const [row] = rows
    if (row !== undefined && row.rows > 0) tables[name] = row
  }
  return tables
}

/** The centre may move between its checksum and our pull; a comparison counts at one position only. */
const ATTEMPTS_MAX = 5

async function verifyStore(db: AgentDB, url: string, token: string): Promise<Verification> {
  await using sync = connect(db, { url, token, start: false })
  await sync.now()
  for (let attempt = 1; ; attempt++) {
    const { local, central } = await sync.checksums()
    if (local.position !== central.position && attempt < ATTEMPTS_MAX) continue
    const names = Object.keys({ ...local.tables, ...central.tables })
    const differing = names.filter(
      (name) => local.tables[name]?.sha256 !== central.tables[name]?.sha256,
    )
    const rows = Object.values(central.tables).reduce((sum, each) => sum + each.rows, 0)
    return { equal: differing.length === 0, differing, rows, position: local.position }
  }
}

function text(report: StoreReport, verification: Verification | undefined): string {
  const { pending, oldestPendingAgeMs: age, conflicts } = report
  const kinds = Object.entries(conflicts).map(([kind, count]) => `${count} ${kind}`)
  const never = report.history === null
  const oldest = age === null ? '' : `, the oldest since ${duration(age)}`
  return table([
    ['store', report.path],
    ['user', `${report.userId} (${report.email ?? 'provisional: never met the centre'})`],
    ['agent', report.agentId],
    ['client', report.clientId],
    ['pending', pending === 0 ? 'nothing' : `${plural(pending, 'transaction')}${oldest}`],
    ['position', never ? 'none: never synced' : `${report.position} of history ${report.history}`],
    ['conflicts', kinds.length === 0 ? 'none' : kinds.join(', ')],
    ...Object.entries(report.tables).map(([name, { rows, last }], i): [string, string] => [
      i === 0 ? 'rows' : '',
      `${name} ${rows}${last === null ? '' : `, last ${last}`}`,
    ]),
    ...(verification === undefined
      ? []
      : ([['checksums', verdict(verification)]] satisfies [string, string][])),
  ])
}

const verdict = ({ equal, differing, rows, position }: Verification): string =>
  equal
    ? `equal: ${plural(rows, 'row')} at position ${position}`
    : `DIFFERENT in ${differing.join(', ')} at position ${position}`
