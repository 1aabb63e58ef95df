import Database from 'better-sqlite3'
import { AgentDBError } from '../../schema/errors.ts'
import { tableOfName } from '../../schema/tables.ts'

/** What went wrong in SQLite, in the words and codes of AgentDB. Our own errors pass through. */
export function fromSqlite(error: unknown, table?: string): unknown {
  if (!(error instanceof Database.SqliteError)) return error
  const { code, message } = error
  const details = { table, cause: error }
  if (code === 'SQLITE_FULL' || code === 'SQLITE_IOERR_WRITE') {
    return new AgentDBError(
      'STORE_FULL',
      `the disk is full or the file cannot grow; nothing was written (${message})`,
      details,
    )
  }
  if (code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')) {
    return new AgentDBError(
      'STORE_BUSY',
      `another process holds the store's write lock; try again (${message})`,
      details,
    )
  }
  if (code === 'SQLITE_NOTADB' || code.startsWith('SQLITE_CORRUPT')) {
    return new AgentDBError(
      'STORE_CORRUPT',
      `the file is not an intact AgentDB store (${message})`,
      details,
    )
  }
  if (code === 'SQLITE_CONSTRAINT_TRIGGER' && message.startsWith('agentdb: ')) {
    return new AgentDBError('READ_ONLY_TABLE', message.slice('agentdb: '.length), details)
  }
  if (code.startsWith('SQLITE_CONSTRAINT')) return constraintError(error, table)
  return error
}

/** Whether a statement failed because of what it would have written; nothing of it is left then, all else is. */
export const isConstraintError = (error: unknown): boolean =>
  error instanceof Database.SqliteError && error.code.startsWith('SQLITE_CONSTRAINT')

function constraintError(
  error: InstanceType<typeof Database.SqliteError>,
  table: string | undefined,
): AgentDBError {
  const { code, message } = error
  const named = /constraint failed: (.+)$/.exec(message)?.[1]
  const columns = named?.split(', ').map((part) => part.split('.'))
  const first = columns?.[0]
  const place =
    first !== undefined && first.length === 2
      ? { table: first[0], column: columns?.map((part) => part[1]).join(', ') }
      : { table }
  const what =
    code === 'SQLITE_CONSTRAINT_FOREIGNKEY'
      ? 'a referenced row does not exist'
      : code === 'SQLITE_CONSTRAINT_NOTNULL'
        ? message + whoFills(place)
        : message
  return new AgentDBError('CONSTRAINT', `${place.table ?? 'row'}: ${what}`, {
    ...place,
    constraint: named ?? code.replace('SQLITE_CONSTRAINT_', '').toLowerCase(),
    cause: error,
  })
}

/** What a repository fills in has no default in SQL: no expression there may look at other rows, or knows the user. */
function whoFills(place: {
  readonly table?: string | undefined
  readonly column?: string | undefined
}): string {
  const shape = tableOfName(place.table ?? '')?.columns[place.column ?? '']?.shape
  switch (shape?.default?.kind) {
    case 'next-in':
      return `; create() numbers it within ${shape.default.column}, an insert in SQL gives it itself`
    case 'acting-user':
      return '; create() takes the user of the store, an insert in SQL gives it itself'
    default:
      return ''
  }
}
