import { roleAccess } from '../../../schema/role-access.ts'
import type { UserRole } from '../../../schema/enums.ts'
import type { TableDefinition } from '../../../schema/define.ts'
import type { Session } from '../../postgres/database.ts'
import type { Principal } from '../principal.ts'
import type { ClientTransaction } from './transaction.ts'
import { referencedRows } from './working-state.ts'

/** Whether the centre may still get back rows that it lost when it went back: never went back, yet, no longer. */
export type Window = 'none' | 'open' | 'over'

/**
 * What becomes of a transaction that needs a row which was never here. `wait`: its author may yet bring it back. `gone`:
 * the transaction has waited for it until the end of the window. `unknown`: as in a centre that never went back.
 */
export type Missing = 'wait' | 'gone' | 'unknown'

/** What is known of rows that are not back yet. */
export interface MissingRows {
  of(transaction: ClientTransaction): Missing
  /** Whether the centre had taken the transaction before, and lost it. */
  isBroughtBack(transaction: ClientTransaction): boolean
  /** Whether someone who may delete the row has done so before it was back. */
  isBuried(table: TableDefinition, id: string): boolean
  /** Whether a transaction of this client that waits makes the row. */
  isAwaited(id: string): boolean
  /** A transaction is to wait. */
  park(mutations: ClientTransaction['mutations']): void
}

const nothingMissing: MissingRows = {
  of: () => 'unknown',
  isBroughtBack: () => false,
  isBuried: () => false,
  isAwaited: () => false,
  park: () => undefined,
}

export async function loadMissingRows(
  session: Session,
  { window, isHealing }: { readonly window: Window; readonly isHealing: boolean },
  actor: { readonly clientId: string; readonly principal: Principal },
  transactions: readonly ClientTransaction[],
): Promise<MissingRows> {
  // A centre that went back once more may have lost that it ever did; a store that heals still brings what it had taken.
  if (window === 'none' && !isHealing) return nothingMissing
  const waited = await session.query<{ tx_id: string }>(
    'SELECT tx_id FROM sync.parked WHERE tx_id = ANY($1::text[])',
    [transactions.map(({ id }) => id)],
  )
  // A store that heals becomes a new client, and sends first what the centre lost.
  const healed = await session.query<{ offered: number }>(
    'SELECT offered FROM sync.healed WHERE client_id = $1',
    [actor.clientId],
  )
  const { userId } = actor.principal
  const named = transactions.flatMap(({ mutations }) => mutations.flatMap(rowsOf))
  const awaited = await session.query<{ id: string }>(
    'SELECT unnest(makes)::text AS id FROM sync.parked WHERE client_id = $1 AND makes && $2::uuid[] AND tx_id <> ALL($3::text[])',
    [actor.clientId, named, transactions.map(({ id }) => id)],
  )
  const { rows } = await session.query<KnownOfMissing['buried'][number]>(
    'SELECT tbl, id, user_id, role FROM sync.tombstone WHERE id = ANY($1::uuid[])',
    [named],
  )
  return missingRows(window, {
    waited: new Set(waited.rows.map((row) => row.tx_id)),
    offered: healed.rows[0]?.offered ?? 0,
    buried: rows,
    awaited: awaited.rows.map(({ id }) => id),
    userId,
  })
}

/** What the tables say of rows that are not back yet, as far as a group of one client asks. */
interface KnownOfMissing {
  /** Transactions that have been parked. */
  readonly waited: ReadonlySet<string>
  /** How many transactions the client brought when its store healed. */
  readonly offered: number
  readonly buried: readonly {
    readonly tbl: number
    readonly id: string
    readonly user_id: string
    readonly role: UserRole
  }[]
  /** Rows that parked transactions of the client make, those of the group left out. */
  readonly awaited: readonly string[]
  readonly userId: string
}

export function missingRows(
  window: Window,
  { waited, offered, buried, awaited, userId }: KnownOfMissing,
): MissingRows {
  const isMadeLater = new Set(awaited)
  return {
    of: ({ id }) => (window === 'open' ? 'wait' : waited.has(id) ? 'gone' : 'unknown'),
    isBroughtBack: ({ id, seq }) => seq <= offered || waited.has(id),
    isBuried: ({ number, owner }, id) =>
      buried.some(
        (row) =>
          row.tbl === number &&
          row.id === id &&
          // It binds only inserts that its author could have deleted.
          (row.user_id === userId ||
            (owner.kind === 'shared' &&
              !owner.ownWritesOnly &&
              roleAccess[row.role].delete.includes(owner.key))),
      ),
    isAwaited: (id) => isMadeLater.has(id),
    park: (mutations) => {
      for (const id of madeBy(mutations)) isMadeLater.add(id)
    },
  }
}

/** Rows that mutations make. */
export const madeBy = (mutations: ClientTransaction['mutations']): string[] =>
  mutations.filter(({ op }) => op === 'insert').map(({ id }) => id)

/** The row that a mutation is about, and those that it points at. */
const rowsOf = (mutation: ClientTransaction['mutations'][number]): string[] =>
  mutation.table === undefined || mutation.refusal !== undefined
    ? [mutation.id]
    : [mutation.id, ...referencedRows(mutation).map(({ id }) => id)]

/** What matters here of a decision. */
interface Decided {
  readonly outcomes: readonly { readonly kind: string }[]
  readonly tombstones?: readonly { readonly table: TableDefinition; readonly id: string }[]
}

export const isParked = ({ outcomes }: Decided): boolean =>
  outcomes.some(({ kind }) => kind === 'parked')

/** Notes which transactions wait, which wait no longer, and which rows were deleted before they were back. */
export async function recordMissing(
  session: Session,
  actor: { readonly clientId: string; readonly principal: Principal },
  transactions: readonly ClientTransaction[],
  decisions: readonly Decided[],
): Promise<void> {
  const parked = transactions.filter((_, i) => {
    const decision = decisions[i]
    return decision !== undefined && isParked(decision)
  })
  const waiting = new Set(parked)
  await session.query('DELETE FROM sync.parked WHERE tx_id = ANY($1::text[])', [
    transactions.filter((one) => !waiting.has(one)).map(({ id }) => id),
  ])
  const places = [actor.clientId, parked.map(({ id }) => id)]
  await session.query(
    `INSERT INTO sync.parked (tx_id, client_id, makes) SELECT u.id, $1, u.makes::uuid[] FROM unnest($2::text[], $3::text[]) u(id, makes) ON CONFLICT (tx_id) DO NOTHING`,
    [...places, parked.map(({ mutations }) => `{${madeBy(mutations).join()}}`)],
  )
  // Sent again, its number is known to be this store's.
  await session.query(
    `INSERT INTO sync.repeated (client_id, seq, tx_id) SELECT $1, u.seq, u.id FROM unnest($2::text[], $3::bigint[]) u(id, seq)`,
    [...places, parked.map(({ seq }) => seq)],
  )
  const buried = decisions.flatMap(({ tombstones = [] }) => tombstones)
  await session.query(
    `INSERT INTO sync.tombstone (tbl, id, user_id, role) SELECT u.tbl, u.id, $1, $2 FROM unnest($3::smallint[], $4::uuid[]) u(tbl, id)
    ON CONFLICT DO NOTHING`,
    [
      actor.principal.userId,
      actor.principal.role,
      buried.map(({ table }) => table.number),
      buried.map(({ id }) => id),
    ],
  )
}
