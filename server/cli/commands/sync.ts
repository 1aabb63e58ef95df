import type { Command } from 'commander'
import { AgentDBError, type ErrorCode } from '../../../schema/errors.ts'
import { connect, type Outcome, type OutcomeKind, type Sync } from '../../../sync/index.ts'
import { addRemoteOptions, jsonOption } from '../options.ts'
import { plural, print, printError, printJson, printProgress, table } from '../output.ts'
import { nextSignal } from '../signals.ts'
import { openStore } from '../store.ts'

interface SyncCommandOptions {
  readonly url: string
  readonly token: string
  readonly watch?: boolean
  readonly json?: boolean
}

export function registerSync(root: Command): void {
  addRemoteOptions(
    root
      .command('sync')
      .description('Push and pull until a store and the centre have each other’s changes.')
      .argument('<store>', 'file of the store'),
    true,
  )
    .option('--watch', 'stay connected until Ctrl-C')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Ends with 0 once everything is exchanged, also if the centre rejected some writes: these are listed,
and stay in the store with their reason. Ends with 1 if something stood in the way; the queue is kept.

Examples:
  $ agentdb sync agent.db --url http://127.0.0.1:7400 --token eyJ...
  $ AGENTDB_TOKEN=eyJ... agentdb sync agent.db --url https://sync.example.com --watch`,
    )
    .action(syncStore)
}

/** Outcomes shown one by one; beyond, only counted. */
const OUTCOMES_SHOWN_MAX = 100
const PROGRESS_MS = 500

async function syncStore(path: string, options: SyncCommandOptions): Promise<void> {
  await using db = await openStore(path)
  await using sync = connect(db, { url: options.url, token: options.token })
  const json = options.json === true
  const tally = new Tally(options)
  sync.on('outcome', (outcome) => tally.add(outcome))
  sync.on('change', (changes) => tally.received(changes.length))
  sync.on('progress', (progress) => {
    if (!json) printProgress('reading', 'rows', progress)
    else if (options.watch === true) printJson({ event: 'progress', ...progress })
  })
  if (options.watch === true) return await watch(sync, options)
  const before = sync.status().pending
  const progress = setInterval(() => {
    if (!json && !sync.status().hydrating && before > 0)
      printError(`${before - sync.status().pending} of ${before} transactions acknowledged`)
  }, PROGRESS_MS)
  try {
    await sync.now()
  } finally {
    clearInterval(progress)
  }
  const { position, pending } = sync.status()
  if (json) return printJson({ ...tally.summary(), pending, position })
  return print(tally.text(position))
}

/** Follows a store until a signal, or until something needs a person. */
async function watch(sync: Sync, { json }: SyncCommandOptions): Promise<void> {
  let shown = ''
  const show = ({ state, pending, position, lastError, nextRetryAt } = sync.status()): void => {
    const line = { state, pending, position, error: lastError?.message, nextRetryAt }
    const key = `${state} ${lastError?.message}`
    if (key === shown) return
    shown = key
    if (json === true) printJson({ event: 'status', ...line })
    else print(statusLine(state, plural(pending, 'pending transaction'), lastError?.message))
  }
  const stopped = new Promise<'stopped'>((done) => {
    const look = (): void => {
      show()
      if (sync.status().state === 'stopped') done('stopped')
    }
    sync.on('status', look)
    look()
  })
  if ((await Promise.race([nextSignal(), stopped])) !== 'stopped') return
  const { lastError } = sync.status()
  throw new AgentDBError(
    (lastError?.code ?? 'SYNC_STOPPED') as ErrorCode,
    lastError?.message ?? 'sync has stopped',
  )
}

const statusLine = (state: string, pending: string, error: string | undefined): string =>
  `${state}, ${pending}${error === undefined || state === 'live' ? '' : `: ${error}`}`

/** Counts outcomes and shows those that are not `applied`, as they come. */
class Tally {
  readonly #counts: Record<OutcomeKind, number> = {
    applied: 0,
    merged: 0,
    superseded: 0,
    rejected: 0,
    dependency_failed: 0,
  }
  readonly #options: SyncCommandOptions
  readonly #notable: Outcome[] = []
  #changes = 0

  constructor(options: SyncCommandOptions) {
    this.#options = options
  }

  add(outcome: Outcome): void {
    this.#counts[outcome.kind] += 1
    if (outcome.kind === 'applied') return
    const { json, watch: watching } = this.#options
    if (json === true) {
      if (watching === true) printJson({ event: 'outcome', ...outcome })
      else if (this.#notable.length < OUTCOMES_SHOWN_MAX) this.#notable.push(outcome)
      return
    }
    const shown = Object.values(this.#counts).reduce((sum, count) => sum + count, 0)
    if (watching === true || shown - this.#counts.applied <= OUTCOMES_SHOWN_MAX)
      print(outcomeLine(outcome))
  }

  received(changes: number): void {
    this.#changes += changes
  }

  summary(): { outcomes: Record<OutcomeKind, number>; notable: Outcome[]; changes: number } {
    return { outcomes: this.#counts, notable: this.#notable, changes: this.#changes }
  }

  text(position: number): string {
    const counted = Object.entries(this.#counts).filter(([, count]) => count > 0)
    return [
      'in sync',
      table([
        ['pushed', counted.map(([kind, count]) => `${count} ${kind}`).join(', ') || 'nothing'],
        ['pulled', this.#changes === 0 ? 'nothing' : plural(this.#changes, 'changed row')],
        ['position', String(position)],
      ]),
    ].join('\n')
  }
}

function outcomeLine({ kind, table: name, id, op, reason, message, changed }: Outcome): string {
  const why = [reason, message].filter((part) => part !== undefined).join(': ')
  const now = changed === undefined ? '' : `, now ${JSON.stringify(changed)}`
  return `${kind.padEnd(17)} ${op} ${name} ${id}${why === '' ? '' : ` (${why})`}${now}`
}
